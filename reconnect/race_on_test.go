//go:build race

package reconnect_test

const raceEnabled = true
