package main

import "syscall"

// descriptors raises the limit of open files to n if it can, and returns what it is then.
func descriptors(n uint64) int {
	var lim syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim) != nil {
		return 0
	}
	if lim.Cur < n {
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: max(lim.Max, n)}) != nil {
			_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: min(n, lim.Max), Max: lim.Max})
		}
		_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim) // as above
	}
	return int(min(lim.Cur, 1<<31-1))
}
