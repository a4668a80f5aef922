package chaos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// wireMain is what kernels without netem lack: a device that delays, reorders, doubles and corrupts the packets that are
// routed into it, and gives them back. Its arguments are the device's name and a seed. It ends when it is killed.
//
// Each packet waits 10 ms and something random, 10 ms on average: so packets overtake each other. One in a hundred is
// doubled, and in one in a hundred a bit is flipped behind the IP header: its checksum is wrong from then on.
func wireMain(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: DEVICE SEED")
	}
	seed, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	req, err := unix.NewIfreq(args[0])
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return err
	}
	device := os.NewFile(uintptr(fd), "/dev/net/tun")
	fmt.Println("ready")

	rng := rand.New(rand.NewPCG(seed, 1))
	buf := make([]byte, 1<<16)
	for {
		n, err := device.Read(buf)
		if err != nil {
			return err
		}
		times := 1
		if rng.IntN(100) == 0 {
			times = 2
		}
		for range times {
			packet := append([]byte(nil), buf[:n]...)
			if n > 20 && rng.IntN(100) == 0 {
				packet[20+rng.IntN(n-20)] ^= 1 << rng.IntN(8)
			}
			delay := 10*time.Millisecond + time.Duration(rng.ExpFloat64()*float64(10*time.Millisecond))
			time.AfterFunc(delay, func() { _, _ = device.Write(packet) }) // what does not fit is lost, as on any link
		}
	}
}
