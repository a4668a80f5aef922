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

	// Memory is how many bytes the values of one payload may take, beside the payload's own bytes. Each value of an
	// array counts for twice the largest element that any slice in the type has, each of a map for what the largest
	// map in the type takes for one, and what lies behind pointers and in interfaces on top: more than it really takes,
	// as a rule. 0: 16 MiB.
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
	w                       weight
	depth, elements, memory int // what is left of them
	l                       Limits
}

// count begins to count values for a type of that weight.
func (l Limits) count(w weight) counter {
	l.Depth = min(orDefault(l.Depth, defaultDepth), maxDepth)
	l.Elements = orDefault(l.Elements, defaultElements)
	l.Memory = orDefault(l.Memory, defaultMemory)
	return counter{w: w, depth: l.Depth, elements: l.Elements, memory: l.Memory, l: l}
}

// add counts n values that take so many bytes each.
func (c *counter) add(n, each int) error {
	if c.elements -= n; c.elements < 0 {
		return fmt.Errorf("%w: more than %d values", ErrLimit, c.l.Elements)
	}
	// n is no more than c.l.Elements here, and each a size of types: no overflow where int has 64 bits.
	if each > 0 && n > c.memory/each {
		return fmt.Errorf("%w: its values would take more than %d bytes", ErrLimit, c.l.Memory)
	}
	c.memory -= n * each
	return nil
}

func (c *counter) tooDeep() error {
	return fmt.Errorf("%w: deeper than %d", ErrLimit, c.l.Depth)
}

// weight is how many bytes decoding into a type may take, at most, but for the bytes of strings: for the whole value
// itself, for each value in an encoded array, and for each in an encoded map, keys being values too.
type weight struct{ whole, inArray, inMap int }

const (
	// mapWeight is a map without its entries, which take memory by eights.
	mapWeight = 64
	// anyWeight is a value in an interface, which may be a map[string]any of one entry.
	anyWeight = 16 + mapWeight + 8*(16+16)
	// maxWeight bounds one of them, so that sums do not overflow: one value of it breaks every limit.
	maxWeight = 1 << 30
)

var weights sync.Map // weight by reflect.Type

// weightOf returns the weight of t.
func weightOf(t reflect.Type) weight {
	if w, ok := weights.Load(t); ok {
		return w.(weight)
	}
	w := weight{whole: own(t, 0)}
	w.weigh(t, map[reflect.Type]bool{})
	w = weight{min(w.whole, maxWeight), min(w.inArray, maxWeight), min(w.inMap, maxWeight)}
	weights.Store(t, w)
	return w
}

// weigh adds all that t has in it.
func (w *weight) weigh(t reflect.Type, seen map[reflect.Type]bool) {
	if seen[t] {
		return
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Slice: // grows by copying
		w.inArray = max(w.inArray, 2*int(t.Elem().Size())+own(t.Elem(), 0))
		w.weigh(t.Elem(), seen)
	case reflect.Array:
		w.inArray = max(w.inArray, own(t.Elem(), 0))
		w.weigh(t.Elem(), seen)
	case reflect.Pointer:
		w.weigh(t.Elem(), seen)
	case reflect.Map: // made outside of it, and copied in; half is free when it has grown
		w.inMap = max(w.inMap, 3*int(t.Key().Size())+own(t.Key(), 0), 3*int(t.Elem().Size())+own(t.Elem(), 0))
		w.weigh(t.Key(), seen)
		w.weigh(t.Elem(), seen)
	case reflect.Interface:
		w.inArray, w.inMap = max(w.inArray, 2*16+anyWeight), max(w.inMap, 3*16+anyWeight)
	case reflect.Struct: // which may be encoded as an array, too
		field := largestField(t, map[reflect.Type]bool{t: true})
		w.inMap, w.inArray = max(w.inMap, field), max(w.inArray, field)
		for f := range t.Fields() {
			w.weigh(f.Type, seen)
		}
	}
}

// largestField is what decoding one field of t takes at most beside t: of one that comes from embedded pointers, all of the
// structs on the way.
func largestField(t reflect.Type, seen map[reflect.Type]bool) (largest int) {
	for f := range t.Fields() {
		n, in := own(f.Type, 0), f.Type
		way := 0
		if in.Kind() == reflect.Pointer {
			in = in.Elem()
			way = int(in.Size())
		}
		if f.Anonymous && in.Kind() == reflect.Struct && !seen[in] {
			seen[in] = true
			n = max(n, way+largestField(in, seen))
			delete(seen, in)
		}
		largest = max(largest, n)
	}
	return largest
}

// own is what decoding one value of t takes beside t itself, and beside the values in it.
func own(t reflect.Type, depth int) int {
	switch t.Kind() {
	case reflect.Pointer:
		if depth > 10 {
			return maxWeight // a pointer to itself
		}
		return int(t.Elem().Size()) + own(t.Elem(), depth+1)
	case reflect.Map:
		return mapWeight + 8*int(t.Key().Size()+t.Elem().Size())
	case reflect.Interface:
		return anyWeight
	}
	return 0
}

// inlined reports whether f is an embedded pointer to a struct, for which vmihailenco/msgpack starts a goroutine that never
// ends and keeps 256 such structs.
func inlined(f reflect.StructField) bool {
	return f.Anonymous && f.Type.Kind() == reflect.Pointer && f.Type.Elem().Kind() == reflect.Struct &&
		!strings.Contains(f.Tag.Get("msgpack"), ",noinline")
}

var timeType = reflect.TypeFor[time.Time]()

// checkType reports what in t the codec cannot carry. own tells which types look after themselves.
func checkType(codec string, t reflect.Type, own func(reflect.Type) bool) error {
	return checkIn(codec, t, t, own, map[reflect.Type]bool{})
}

func checkIn(codec string, t, in reflect.Type, own func(reflect.Type) bool, seen map[reflect.Type]bool) error {
	if seen[t] || t == timeType || own(t) {
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
			if codec == "msgpack" && inlined(f) && !own(f.Type.Elem()) {
				return fmt.Errorf("msgpack: %s embeds a pointer to %s: embed the struct itself, or tag it `msgpack:\",noinline\"`", t, f.Type.Elem())
			}
			if err := checkIn(codec, f.Type, in, own, seen); err != nil {
				return err
			}
		}
	}
	return nil
}
