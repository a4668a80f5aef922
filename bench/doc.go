// Command bench measures Towline beside the limit of the machine and beside its peers, all in one run.
//
//	go run . -quick                    # two minutes: is it still about right?
//	go run . -out ../docs/performance  # everything: what docs/performance.md shows
//
// A floor is what the machine can do: one goroutine that writes header and payload through a bufio.Writer of 64 KiB,
// one that reads them through a bufio.Reader of 64 KiB, and nothing else. All figures are of sender and receiver in one
// process over loopback. All that is measured takes turns, once a round, and a figure is the median of its rounds. Absolute
// figures move from machine to machine and from hour to hour: what counts are the ratios, which are taken within each
// round, and are medians too.
//
// It is a module of its own, so that what the peers need is not in the library's go.mod.
package main
