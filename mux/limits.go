package mux

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"
)

// Limits bound what decoding one payload may take, whatever the payload says. The zero value is safe defaults.
type Limits struct {
	// Depth is how deep arrays and maps may lie in each other. 0: 64. More than 1000: 1000.
	Depth int

	// Elements is how many values there may be in one payload, all levels together; keys are values too. 0: 1,048,576.
	Elements int

	// Memory is how many bytes the values of one payload may take, beside the payload's own bytes: Elements times what
	// the largest of the values that the type may have in an array or map, or behind a pointer, takes. 0: 16 MiB.
	Memory int
}

// Default limits.
const (
	defaultDepth    = 64
	maxDepth        = 1000
	defaultElements = 1 << 20
	defaultMemory   = 16 << 20
)

// ErrLimit is what a payload that breaks the Limits of its Codec matches: nothing of it was decoded.
var ErrLimit = errors.New("mux: the payload breaks a limit")

// counter counts the values of a payload.
type counter struct {
	depth, elements, max int
	byMemory             bool
}

// count begins to count values of weight bytes each.
func (l Limits) count(weight int) counter {
	c := counter{depth: defaultDepth, max: defaultElements}
	if l.Depth > 0 {
		c.depth = min(l.Depth, maxDepth)
	}
	if l.Elements > 0 {
		c.max = l.Elements
	}
	memory := defaultMemory
	if l.Memory > 0 {
		memory = l.Memory
	}
	if n := max(memory/max(weight, 1), 1); n < c.max {
		c.max, c.byMemory = n, true
	}
	return c
}

func (c *counter) add(n int) error {
	if c.elements += n; c.elements <= c.max {
		return nil
	}
	if c.byMemory {
		return fmt.Errorf("%w: more than %d values, which is what its memory allows", ErrLimit, c.max)
	}
	return fmt.Errorf("%w: more than %d values", ErrLimit, c.max)
}

func (c *counter) tooDeep() error {
	return fmt.Errorf("%w: deeper than %d", ErrLimit, c.depth)
}

// anyWeight is what one value in an interface may take: it may be a map[string]any of one entry, which takes memory for
// eight.
const anyWeight = 16 + mapWeight + 8*(16+16)

const mapWeight = 64

var weights sync.Map // int by reflect.Type

// weightOf returns how many bytes one encoded value can make the decoder of a t take, at most, but for the bytes of
// strings: that of an element twice, since slices grow by copying.
func weightOf(t reflect.Type) int {
	if w, ok := weights.Load(t); ok {
		return w.(int)
	}
	w := weigh(t, map[reflect.Type]bool{})
	weights.Store(t, w)
	return w
}

func weigh(t reflect.Type, seen map[reflect.Type]bool) int {
	if seen[t] {
		return 0
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Slice:
		return max(2*int(t.Elem().Size()), weigh(t.Elem(), seen))
	case reflect.Array:
		return weigh(t.Elem(), seen)
	case reflect.Pointer:
		return max(int(t.Elem().Size()), weigh(t.Elem(), seen))
	case reflect.Map:
		entry := int(t.Key().Size() + t.Elem().Size())
		return max(mapWeight+8*entry, weigh(t.Key(), seen), weigh(t.Elem(), seen))
	case reflect.Interface:
		return anyWeight
	case reflect.Struct:
		w := 0
		for f := range t.Fields() {
			w = max(w, weigh(f.Type, seen))
		}
		return w
	}
	return 0
}

var timeType = reflect.TypeFor[time.Time]()

// checkType reports what in t no codec of this kind can carry. own tells which types look after themselves.
func checkType(codec string, t reflect.Type, own func(reflect.Type) bool) error {
	return checkIn(codec, t, t, own, map[reflect.Type]bool{})
}

func checkIn(codec string, t, in reflect.Type, own func(reflect.Type) bool, seen map[reflect.Type]bool) error {
	if seen[t] || t == timeType || own != nil && own(t) || ownsJSON(t) {
		return nil
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer, reflect.Uintptr:
		return fmt.Errorf("%s: cannot carry %s, which is in %s", codec, t, in)
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return fmt.Errorf("%s: cannot decode into %s, which is in %s: it does not say which type", codec, t, in)
		}
	case reflect.Slice, reflect.Array, reflect.Pointer:
		return checkIn(codec, t.Elem(), in, own, seen)
	case reflect.Map:
		return errors.Join(checkIn(codec, t.Key(), in, own, seen), checkIn(codec, t.Elem(), in, own, seen))
	case reflect.Struct:
		for f := range t.Fields() {
			if _, skip := fieldName(f); skip {
				continue
			}
			if codec == "msgpack" && strings.Contains(f.Tag.Get("msgpack"), ",intern") {
				return fmt.Errorf("msgpack: field %s of %s asks for interned strings, which are not to be had", f.Name, t)
			}
			if err := checkIn(codec, f.Type, in, own, seen); err != nil {
				return err
			}
		}
	}
	return nil
}
