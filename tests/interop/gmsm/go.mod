module yiqiao/interop

go 1.24.0

require github.com/emmansun/gmsm v0.41.0

require golang.org/x/crypto v0.47.0 // indirect
