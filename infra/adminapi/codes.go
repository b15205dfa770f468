package adminapi

import (
	"cmp"
	"slices"
)

// CodeDoc describes a code of problems, for the reference.
type CodeDoc struct {
	Code   Code
	Status int
	Title  string
}

// Codes lists the codes of problems by status and name.
func Codes() []CodeDoc {
	var codes []CodeDoc
	for code, kind := range problems {
		codes = append(codes, CodeDoc{code, kind.status, kind.title})
	}
	slices.SortFunc(codes, func(a, b CodeDoc) int { return cmp.Or(a.Status-b.Status, cmp.Compare(a.Code, b.Code)) })
	return codes
}
