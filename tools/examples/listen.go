// SPDX-License-Identifier: GPL-2.0

// An echo server on literal port 0, TCP and UDP: go run listen.go [ADDRESS]
//
// Control is called between socket() and bind(), for every socket.
package main

import (
	"context"
	"io"
	"log"
	"net"
	"os"
	"syscall"
)

const ipBindPortZero = 0x7030

func mark(_, _ string, conn syscall.RawConn) error {
	var problem error
	err := conn.Control(func(fd uintptr) {
		problem = os.NewSyscallError("setsockopt: is the module port0 loaded?",
			syscall.SetsockoptInt(int(fd), syscall.SOL_IP, ipBindPortZero, 1))
	})
	if err != nil {
		return err
	}
	return problem
}

func echoDatagrams(conn net.PacketConn) {
	buf := make([]byte, 65536)
	for {
		n, peer, err := conn.ReadFrom(buf)
		if err != nil {
			log.Fatal(err)
		}
		// The mark lets it answer peers that send from port 0, too.
		if _, err := conn.WriteTo(buf[:n], peer); err != nil {
			log.Print(err)
		}
	}
}

func main() {
	host := ""
	if len(os.Args) > 1 {
		host = os.Args[1]
	}
	config := net.ListenConfig{Control: mark}
	address := net.JoinHostPort(host, "0")

	packets, err := config.ListenPacket(context.Background(), "udp", address)
	if err != nil {
		log.Fatal(err)
	}
	go echoDatagrams(packets)

	listener, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer conn.Close()
			io.Copy(conn, conn)
		}()
	}
}
