// Package errs sees that each error which the public packages promise is produced by at least one test, through their
// public API. It guards the part of claims D3 and D6 of docs/delivery.md that says that whatever happens has an error with
// a type. It runs nothing: it reads the sources. A failure names the error that no test of an external test package (one
// whose name ends with _test, or that lies elsewhere) compares with anything; write one that makes it happen.
package errs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/towline-mq/towline"

// public are the packages that users import, by their folder.
func public(dir string) bool {
	return dir == "datagram" || dir == "mux" || dir == "redial" || dir == "reconnect" || dir == "towlinetest" ||
		dir == "transport" || strings.HasPrefix(dir, "transport/") && !strings.Contains(dir, "internal")
}

type file struct {
	dir  string
	test bool
	ast  *ast.File
}

func files(t *testing.T) (all []file) {
	root := filepath.Join("..", "..")
	fset := token.NewFileSet()
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		all = append(all, file{filepath.ToSlash(dir), strings.HasSuffix(path, "_test.go"), f})
		return err
	}))
	return all
}

// promised lists what a file exports of errors: variables Err…, types …Error, and the constants of State and EventKind,
// which tell the same to those who watch.
func promised(f *ast.File) (names []string) {
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		if g.Tok == token.CONST {
			v := g.Specs[0].(*ast.ValueSpec)
			if typ, ok := v.Type.(*ast.Ident); ok && (typ.Name == "State" || typ.Name == "EventKind") {
				for _, s := range g.Specs {
					names = append(names, s.(*ast.ValueSpec).Names[0].Name)
				}
			}
			continue
		}
		for _, s := range g.Specs {
			switch s := s.(type) {
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() && strings.HasPrefix(n.Name, "Err") {
						names = append(names, n.Name)
					}
				}
			case *ast.TypeSpec:
				if s.Name.IsExported() && strings.HasSuffix(s.Name.Name, "Error") {
					names = append(names, s.Name.Name)
				}
			}
		}
	}
	return names
}

// compared lists the names of other packages, "folder.Name", with which a test compares something: in the arguments of
// a call of errors.Is, errors.As, errors.AsType or one of testify's that is about errors or equality, in a comparison, in
// a table, or as the type of a variable for errors.As.
func compared(f file) (names []string) {
	imports := map[string]string{} // folder by name in this file
	for _, i := range f.ast.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		dir, ours := strings.CutPrefix(path, module+"/")
		if !ours {
			continue
		}
		name := dir[strings.LastIndex(dir, "/")+1:]
		if i.Name != nil {
			name = i.Name.Name
		}
		imports[name] = dir
	}
	inside := func(n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if p, ok := s.X.(*ast.Ident); ok && imports[p.Name] != "" {
					names = append(names, imports[p.Name]+"."+s.Sel.Name)
				}
			}
			return true
		})
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if called := calledName(n.Fun); slices.Contains(comparing, called) {
				for _, a := range n.Args {
					inside(a)
				}
				inside(n.Fun) // errors.AsType[…]
			} else if called == "new" {
				inside(n)
			}
		case *ast.BinaryExpr:
			if n.Op == token.EQL || n.Op == token.NEQ {
				inside(n)
			}
		case *ast.CompositeLit: // a table
			for _, e := range n.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok {
					e = kv.Value
				}
				if _, ok := e.(*ast.SelectorExpr); ok {
					inside(e)
				}
			}
		case *ast.ValueSpec:
			if n.Type != nil {
				inside(n.Type)
			}
		}
		return true
	})
	return names
}

var comparing = []string{"Is", "As", "AsType", "ErrorIs", "ErrorAs", "Equal", "Same", "IsType",
	"await", "count"} // helpers of package reconnect's tests, for events

func calledName(fun ast.Expr) string {
	switch fun := fun.(type) {
	case *ast.Ident:
		return fun.Name
	case *ast.SelectorExpr:
		return fun.Sel.Name
	case *ast.IndexExpr:
		return calledName(fun.X)
	}
	return ""
}

func TestEveryErrorIsProduced(t *testing.T) {
	var want []string
	got := map[string]bool{}
	for _, f := range files(t) {
		switch {
		case !f.test && public(f.dir):
			for _, name := range promised(f.ast) {
				want = append(want, f.dir+"."+name)
			}
		case f.test && !strings.Contains(f.dir, "reconnect/internal"):
			external := strings.HasSuffix(f.ast.Name.Name, "_test")
			for _, name := range compared(f) {
				if dir, _, _ := strings.Cut(name, "."); external || dir != f.dir {
					got[name] = true
				}
			}
		}
	}
	require.Greater(t, len(want), 30, "the errors are not found any more")
	for _, name := range want {
		assert.True(t, got[name], "no test produces %s through the public API", name)
	}
	t.Logf("%d errors, each compared by a test: %s", len(want), strings.Join(want, ", "))
}
