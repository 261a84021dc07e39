// SPDX-License-Identifier: GPL-2.0

//! An echo server on literal port 0, TCP and UDP, IPv4 and IPv6:
//! rustc -O listen.rs && ./listen
//!
//! std binds a socket as it makes it, with no place for an option in between, so
//! the calls are made here; the result is an ordinary TcpListener. With the crate
//! socket2, `mark(&socket)` goes between Socket::new() and Socket::bind().

use std::io::{copy, Error, Result};
use std::mem::size_of;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;

const AF_INET6: i32 = 10;
const SOCK_STREAM: i32 = 1;
const SOCK_DGRAM: i32 = 2;
const SOCK_CLOEXEC: i32 = 0o2000000;
const SOL_IP: i32 = 0;
const SOL_SOCKET: i32 = 1;
const SO_REUSEADDR: i32 = 2;
const IP_BIND_PORT_ZERO: i32 = 0x7030;

#[repr(C)]
#[derive(Default)]
struct SockaddrIn6 {
    family: u16,
    port: u16,
    flowinfo: u32,
    addr: [u8; 16],
    scope_id: u32,
}

extern "C" {
    fn socket(family: i32, kind: i32, protocol: i32) -> i32;
    fn setsockopt(fd: i32, level: i32, name: i32, value: *const i32, len: u32) -> i32;
    fn bind(fd: i32, addr: *const SockaddrIn6, len: u32) -> i32;
    fn listen(fd: i32, backlog: i32) -> i32;
}

fn check(result: i32) -> Result<i32> {
    if result < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn set(socket: &impl AsRawFd, level: i32, name: i32) -> Result<()> {
    let one = 1;
    check(unsafe { setsockopt(socket.as_raw_fd(), level, name, &one, size_of::<i32>() as u32) })?;
    Ok(())
}

/// Says "Protocol not available" where the module port0 is not loaded.
fn mark(socket: &impl AsRawFd) -> Result<()> {
    set(socket, SOL_IP, IP_BIND_PORT_ZERO)
}

/// A socket on port 0 of [::], which takes IPv4 as well.
fn port_zero(kind: i32) -> Result<OwnedFd> {
    let fd = check(unsafe { socket(AF_INET6, kind | SOCK_CLOEXEC, 0) })?;
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let any = SockaddrIn6 { family: AF_INET6 as u16, ..Default::default() };

    mark(&fd)?;
    if kind == SOCK_STREAM {
        set(&fd, SOL_SOCKET, SO_REUSEADDR)?;
    }
    check(unsafe { bind(fd.as_raw_fd(), &any, size_of::<SockaddrIn6>() as u32) })?;
    if kind == SOCK_STREAM {
        check(unsafe { listen(fd.as_raw_fd(), 128) })?;
    }
    Ok(fd)
}

fn echo_datagrams(socket: UdpSocket) -> Result<()> {
    let mut buf = [0; 65536];
    loop {
        let (len, peer) = socket.recv_from(&mut buf)?;
        // The mark lets it answer peers that send from port 0, too.
        let _ = socket.send_to(&buf[..len], peer);
    }
}

fn main() -> Result<()> {
    let socket = UdpSocket::from(port_zero(SOCK_DGRAM)?);
    thread::spawn(move || echo_datagrams(socket));

    for stream in TcpListener::from(port_zero(SOCK_STREAM)?).incoming() {
        // One that cannot be accepted must not end the server.
        let Ok(stream) = stream else { continue };
        thread::spawn(move || copy(&mut &stream, &mut &stream));
    }
    Ok(())
}
