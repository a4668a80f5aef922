package main

import (
	"fmt"
	"strings"
)

// fill puts each section between its marks in a Markdown document:
//
//	<!-- begin: one-way -->
//	<!-- end: one-way -->
//
// What stands between them is replaced, and nothing else. A section without marks is an error; marks without a section
// keep what they have.
func fill(doc string, sections []section) (string, error) {
	for _, sec := range sections {
		begin, end := "<!-- begin: "+sec.name+" -->\n", "<!-- end: "+sec.name+" -->"
		head, rest, ok := strings.Cut(doc, begin)
		if !ok {
			return "", fmt.Errorf("the document has no line %q", strings.TrimSpace(begin))
		}
		_, tail, ok := strings.Cut(rest, end)
		if !ok {
			return "", fmt.Errorf("the document has no line %q behind %q", end, strings.TrimSpace(begin))
		}
		doc = head + begin + "\n" + strings.TrimRight(sec.text, "\n") + "\n\n" + end + tail
	}
	return doc, nil
}
