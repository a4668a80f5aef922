package main

import (
	"fmt"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// line is one line of a plot: a value for each label of the horizontal axis, or NaN.
type line struct {
	name   string
	values []float64
}

// plots draws what there are figures for into dir, and returns the files.
func (s set) plots(dir string) ([]string, error) {
	var names []string
	for _, p := range []struct {
		file, title, unit string
		labels            []string
		lines             []line
	}{
		{"throughput.png", "One way over TCP, by size of message", "messages/s", sizeLabels(), s.throughputLines()},
		{"latency.png", "Round trips of 64 B over TCP, by percentile", "µs", []string{"p50", "p90", "p99", "p99.9", "p99.99"}, s.latencyLines()},
		{"recovery.png", "From harm to the connection to the next message", "µs", []string{"p50", "p90", "p99", "max"}, s.recoveryLines()},
	} {
		if len(p.lines) == 0 {
			continue
		}
		if err := draw(filepath.Join(dir, p.file), p.title, p.unit, p.labels, p.lines); err != nil {
			return nil, fmt.Errorf("%s: %w", p.file, err)
		}
		names = append(names, p.file)
	}
	return names, nil
}

func sizeLabels() []string {
	var labels []string
	for _, size := range sizes {
		labels = append(labels, sizeName(size))
	}
	return labels
}

func (s set) throughputLines() []line {
	var lines []line
	for _, k := range s.rows(oneWay, "tcp") {
		l := line{name: who(k)}
		for _, size := range sizes {
			k.Size = size
			l.values = append(l.values, s.of(k, rate))
		}
		switch k.Mode {
		case "", single, lent: // the others lie between these, or are for one size alone
			lines = append(lines, l)
		}
	}
	return lines
}

func (s set) latencyLines() []line {
	var lines []line
	for _, k := range s.rows(roundTrip, "tcp") {
		k.Size = tiny
		lines = append(lines, s.percentileLine(who(k), k, p50, p90, p99, p999, p9999))
	}
	return lines
}

func (s set) recoveryLines() []line {
	var lines []line
	for _, l := range []line{
		s.percentileLine("bare TCP: RST, dial, one message", key{recovery, floor, "tcp", "", tiny}, p50, p90, p99, most),
		s.percentileLine("session: RST", key{recovery, session, "tcp", "", tiny}, p50, p90, p99, most),
		s.percentileLine("session: takeover", key{takeover, session, "tcp", "", tiny}, p50, p90, p99, most),
	} {
		if there(l.values[0]) {
			lines = append(lines, l)
		}
	}
	return lines
}

func (s set) percentileLine(name string, k key, names ...string) line {
	l := line{name: name}
	for _, n := range names {
		l.values = append(l.values, s.of(k, n))
	}
	return l
}

// draw writes a PNG of lines over labels, with a logarithmic vertical axis.
func draw(path, title, unit string, labels []string, lines []line) error {
	p := plot.New()
	p.Title.Text = title
	p.Y.Label.Text = unit
	p.Y.Scale = plot.LogScale{}
	p.Y.Tick.Marker = plot.LogTicks{Prec: -1}
	p.Legend.Top = true
	p.Legend.Left = false
	p.Add(plotter.NewGrid())
	for i, l := range lines {
		var points plotter.XYs
		for x, v := range l.values {
			if there(v) && v > 0 { // a logarithm needs that
				points = append(points, plotter.XY{X: float64(x), Y: v})
			}
		}
		if len(points) == 0 {
			continue
		}
		curve, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		curve.Color, curve.Dashes = plotutil.Color(i), plotutil.Dashes(i/7)
		marks.Color, marks.Shape = plotutil.Color(i), plotutil.Shape(i)
		p.Add(curve, marks)
		p.Legend.Add(l.name, curve, marks)
	}
	p.NominalX(labels...)
	p.X.Max = float64(len(labels)) + 0.6 // room for the legend
	return p.Save(24*vg.Centimeter, 14*vg.Centimeter, path)
}
