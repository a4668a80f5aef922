package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestPacerDoesNotDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pacer{rate: 30}
		start := time.Now()
		for i := range 3000 {
			assert.Equal(t, 1, p.take(1, nil))
			if i%100 == 50 {
				<-time.After(500 * time.Millisecond) // held up: it catches up
			}
		}
		assert.InDelta(t, 2999.0/30, time.Since(start).Seconds(), 0.001)
	})
}

func TestPacerBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pacer{rate: 1000}
		assert.Equal(t, 1, p.take(50, nil))
		<-time.After(20 * time.Millisecond)
		assert.Equal(t, 20, p.take(50, nil))
		<-time.After(100 * time.Millisecond)
		assert.Equal(t, 50, p.take(50, nil))
		assert.Equal(t, 50, p.take(50, nil))
	})
}

func TestPacerOff(t *testing.T) {
	assert.Equal(t, 7, new(pacer).take(7, nil))
}

func TestPacerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pacer{rate: 1e-6} // one in 12 days
		stop := make(chan struct{})
		assert.Equal(t, 1, p.take(1, stop))
		time.AfterFunc(time.Second, func() { close(stop) })
		start := time.Now()
		assert.Equal(t, 0, p.take(1, stop))
		assert.Equal(t, time.Second, time.Since(start))
	})
}
