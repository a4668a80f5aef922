package program

import (
	"fmt"
	"io"
)

// Console is where a program speaks: data to Stdout, errors in one line to Stderr, with the program's name before them.
type Console struct {
	Name           string
	Stdout, Stderr io.Writer
}

// Fail prints one line that says what went wrong, and returns code.
func (c Console) Fail(code int, format string, args ...any) int {
	fmt.Fprintf(c.Stderr, "%s: %s\n", c.Name, OneLine(fmt.Sprintf(format, args...)))
	return code
}

// Print writes text to Stdout, and returns OK, or what Fail says of a failed write.
func (c Console) Print(text string) int {
	if _, err := io.WriteString(c.Stdout, text); err != nil {
		return c.Fail(Failed, "cannot write the output: %s", Reason(err))
	}
	return OK
}
