package unix_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/towline-mq/towline/transport/unix"
)

func ExampleDialer() {
	dir, err := os.MkdirTemp("", "towline")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "echo.sock")

	ctx := context.Background()
	ln, err := unix.Listen(ctx, path, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "welcome")
	}()

	conn, err := unix.Dialer{Path: path}.DialContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	greeting, err := io.ReadAll(conn)
	fmt.Println(string(greeting), err)
	// Output: welcome <nil>
}

func ExampleListen() {
	dir, err := os.MkdirTemp("", "towline")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "echo.sock")

	ctx := context.Background()
	ln, err := unix.Listen(ctx, path, &unix.Config{Mode: 0o600}) // for this user alone
	if err != nil {
		fmt.Println(err)
		return
	}
	info, err := os.Lstat(path)
	fmt.Println(info.Mode(), err)

	_, err = unix.Listen(ctx, path, nil)
	fmt.Println("in use:", errors.Is(err, syscall.EADDRINUSE))

	fmt.Println(ln.Close())
	_, err = os.Lstat(path)
	fmt.Println("gone:", errors.Is(err, os.ErrNotExist))
	// Output:
	// Srw------- <nil>
	// in use: true
	// <nil>
	// gone: true
}
