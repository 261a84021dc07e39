/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * port0 - bind TCP and UDP sockets to port 0, literally
 *
 * A program binds a socket to port 0 in two steps: it marks the socket, then binds it.
 *
 *	int one = 1;
 *
 *	if (setsockopt(fd, SOL_IP, IP_BIND_PORT_ZERO, &one, sizeof(one)))
 *		...module not loaded, or not a TCP or UDP socket...
 *	addr.sin_port = 0;
 *	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
 *		...EADDRINUSE, EACCES, EINVAL as for any fixed port...
 *
 * port0(7), which is tools/port0.7 in the source, has all errors, the privilege that
 * bind() needs, and what Landlock and SELinux check.
 *
 * Without the module, setsockopt() fails with ENOPROTOOPT, so a program that checks
 * the result never gets an ephemeral port by mistake. (If the module may be unloaded
 * between the two calls, read IP_BOUND_PORT_ZERO after bind().)
 * Only bind() uses the mark: a marked socket that listens, connects or sends without
 * bind() gets an ephemeral port, as it would without the mark. A marked UDP socket
 * may also sendto() port 0, which fails with EINVAL on other sockets.
 */
#ifndef _UAPI_PORT0_H
#define _UAPI_PORT0_H

/*
 * int, 0 or 1; get and set. While it is 1, bind() to port 0 on this socket means
 * exactly port 0. Level SOL_IP on AF_INET and AF_INET6 sockets, or SOL_IPV6 on
 * AF_INET6 sockets: both are the same mark.
 */
#define IP_BIND_PORT_ZERO	0x7030
#define IPV6_BIND_PORT_ZERO	0x7030

/*
 * int, get only: 1 if this socket holds port 0 now, by its own bind() or because the
 * connection that it was accepted for is to port 0. Setting it fails with ENOPROTOOPT.
 */
#define IP_BOUND_PORT_ZERO	0x7031
#define IPV6_BOUND_PORT_ZERO	0x7031

#endif /* _UAPI_PORT0_H */
