"""The header of a document: whom it is about, who made it, in which visit."""
