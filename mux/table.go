package mux

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Tag is a line of the table of tags: what both sides of a connection have to agree on. Tags can be compared by ==.
type Tag struct {
	Recipient uint16
	Name      string
	Type      string // with the fields of structs, as they are encoded; empty: raw
	Reply     string // the same of a call's answer; empty: not a call
	Codec     string // empty: raw
}

// Table is what a Mux is bound to, by recipient. It says nothing of handlers, so that a server's and its client's are
// equal: compare them in a test, or each with a file.
type Table []Tag

// Table returns the tags of m.
func (m *Mux) Table() Table {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := make(Table, 0, len(m.routes))
	for _, r := range m.routes {
		tag := Tag{Recipient: r.recipient, Name: r.name}
		if r.typ != nil {
			tag.Type = describe(r.typ)
			tag.Codec = fmt.Sprintf("%T", r.codec)
			if s, ok := r.codec.(fmt.Stringer); ok {
				tag.Codec = s.String()
			}
		}
		if r.reply != nil {
			tag.Reply = describe(r.reply)
		}
		t = append(t, tag)
	}
	slices.SortFunc(t, func(a, b Tag) int { return int(a.Recipient) - int(b.Recipient) })
	return t
}

// String returns the table in Markdown.
func (t Table) String() string {
	var b strings.Builder
	b.WriteString("| recipient | name | type | reply | codec |\n|---:|---|---|---|---|\n")
	for _, tag := range t {
		fmt.Fprintf(&b, "| %d | %s | %s | %s | %s |\n", tag.Recipient, cell(tag.Name), code(tag.Type), code(tag.Reply), cell(tag.Codec))
	}
	return b.String()
}

func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s)
}

func code(s string) string {
	if s == "" {
		return "–"
	}
	return "`" + cell(s) + "`"
}

// describe names t without its package, and what is in it.
func describe(t reflect.Type) string {
	var b strings.Builder
	describeIn(&b, t, map[reflect.Type]bool{})
	return b.String()
}

func describeIn(b *strings.Builder, t reflect.Type, seen map[reflect.Type]bool) {
	name := t.Name()
	b.WriteString(name)
	if name != "" && (seen[t] || t.PkgPath() == "" || t == timeType) {
		return // said before, or it says all
	}
	seen[t] = true
	inner := func(prefix string, t reflect.Type) {
		if name != "" {
			b.WriteByte(' ')
		}
		b.WriteString(prefix)
		describeIn(b, t, seen)
	}
	switch t.Kind() {
	case reflect.Pointer:
		inner("*", t.Elem())
	case reflect.Slice:
		inner("[]", t.Elem())
	case reflect.Array:
		inner(fmt.Sprintf("[%d]", t.Len()), t.Elem())
	case reflect.Map:
		inner("map[", t.Key())
		b.WriteByte(']')
		describeIn(b, t.Elem(), seen)
	case reflect.Struct:
		b.WriteByte('{')
		first := true
		for f := range t.Fields() {
			field, skip := fieldName(f)
			if skip {
				continue
			}
			if !first {
				b.WriteString("; ")
			}
			first = false
			b.WriteString(field)
			b.WriteByte(' ')
			describeIn(b, f.Type, seen)
		}
		b.WriteByte('}')
	default:
		if name != "" {
			b.WriteByte(' ')
		}
		b.WriteString(t.Kind().String())
	}
}

// fieldName returns what a field is called when it is encoded, by its tag for MessagePack or JSON, and whether it is
// left out.
func fieldName(f reflect.StructField) (name string, skip bool) {
	if !f.IsExported() && !f.Anonymous {
		return "", true
	}
	for _, key := range []string{"msgpack", "json"} {
		if tag, ok := f.Tag.Lookup(key); ok {
			name, _, _ := strings.Cut(tag, ",")
			if name == "-" {
				return "", true
			}
			if name != "" {
				return name, false
			}
		}
	}
	return f.Name, false
}
