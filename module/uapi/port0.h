/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * port0 - bind TCP and UDP sockets to port 0, literally
 *
 * A socket asks for port 0 in two steps: it is marked, then bound.
 *
 *	int one = 1;
 *
 *	if (setsockopt(fd, SOL_IP, IP_BIND_PORT_ZERO, &one, sizeof(one)))
 *		...no module, or not a TCP or UDP socket...
 *	addr.sin_port = 0;
 *	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
 *		...EADDRINUSE, EACCES, EINVAL as for any fixed port; ENOPROTOOPT if
 *		the module is being loaded or unloaded; EPERM while it drains; EBUSY
 *		as from setsockopt()...
 *
 * Without the module, setsockopt() fails with ENOPROTOOPT, so a program that checks
 * the result never gets an ephemeral port by mistake. (If the module may be unloaded
 * between the two calls, read IP_BOUND_PORT_ZERO after bind().)
 * Only bind() uses the mark: a marked socket that listens, connects or sends without
 * bind() gets an ephemeral port, as it would without the mark. A marked UDP socket
 * may also sendto() port 0, which fails with EINVAL on other sockets.
 *
 * Port 0 counts as a port below 1024. Landlock refuses the bind() unless it has a
 * rule for port 0, which also allows any free port. SELinux checks node_bind and not
 * name_bind.
 */
#ifndef _UAPI_PORT0_H
#define _UAPI_PORT0_H

/*
 * int, 0 or 1; get and set. While it is 1, bind() to port 0 on this socket means
 * exactly port 0. Level SOL_IP on AF_INET and AF_INET6 sockets, or SOL_IPV6 on
 * AF_INET6 sockets: both are the same mark.
 *
 *	EINVAL		optlen below sizeof(int), or a value other than 0 and 1
 *	EFAULT		bad pointer
 *	ENOPROTOOPT	not a TCP or UDP socket, or the module is not loaded
 *	EBUSY		the mark cannot be cleared while the socket holds port 0; or
 *			something else (a livepatch, another module) redirects a
 *			function that has to be hooked: see the kernel log
 *	EPERM		the administrator has set the module's parameter "drain", or
 *			"init_userns" outside the initial user namespace
 */
#define IP_BIND_PORT_ZERO	0x7030
#define IPV6_BIND_PORT_ZERO	0x7030

/*
 * int, get only: 1 if this socket holds port 0 now, by its own bind() or as a
 * child accepted from a listener on port 0. Setting it fails with ENOPROTOOPT.
 */
#define IP_BOUND_PORT_ZERO	0x7031
#define IPV6_BOUND_PORT_ZERO	0x7031

#endif /* _UAPI_PORT0_H */
