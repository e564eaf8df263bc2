// Reads what Yiqiao wrote, with github.com/emmansun/gmsm, which shares nothing with it: an SM2 certificate and its chain, a
// SignedAndEnvelopedData (GM/T 0010) and a detached SignedData.
//
//	gmsm DIR    DIR holds root.pem, signer.pem, recipient.pem, recipient.key (hex scalar), envelope.der, content,
//	            and, if there is a detached signature: signed.der, statement
package main

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"

	"github.com/emmansun/gmsm/pkcs7"
	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/smx509"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func check(holds bool, what string) {
	if !holds {
		fmt.Fprintln(os.Stderr, "does not hold:", what)
		os.Exit(1)
	}
	fmt.Println("ok", what)
}

func main() {
	read := func(name string) []byte { return must(os.ReadFile(filepath.Join(os.Args[1], name))) }
	certificate := func(name string) *smx509.Certificate {
		block, _ := pem.Decode(read(name))
		return must(smx509.ParseCertificate(block.Bytes))
	}
	root, signer, recipient := certificate("root.pem"), certificate("signer.pem"), certificate("recipient.pem")
	pool := smx509.NewCertPool()
	pool.AddCert(root)
	for _, leaf := range []*smx509.Certificate{signer, recipient} {
		_, err := leaf.Verify(smx509.VerifyOptions{Roots: pool, CurrentTime: leaf.NotBefore})
		check(err == nil, "certificate chain of "+leaf.Subject.CommonName)
	}

	scalar := must(hex.DecodeString(strings.TrimSpace(string(read("recipient.key")))))
	key := must(sm2.NewPrivateKeyFromInt(new(big.Int).SetBytes(scalar)))
	envelope := must(pkcs7.Parse(read("envelope.der")))
	envelope.Certificates = []*smx509.Certificate{signer}
	opened, err := envelope.DecryptAndVerify(recipient, key, envelope.Verify)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	check(err == nil && bytes.Equal(opened, read("content")), "envelope opened and its signature verified")

	if _, err := os.Stat(filepath.Join(os.Args[1], "signed.der")); err == nil {
		signed := must(pkcs7.Parse(read("signed.der")))
		signed.Content = read("statement")
		check(signed.Verify() == nil, "detached signature verified")
		signed.Content = append(signed.Content, '!')
		check(signed.Verify() != nil, "detached signature over something else refused")
	}
}
