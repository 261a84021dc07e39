/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The socket options by number.
 *
 * This directory has to build in a kernel tree, without the module's header, so the
 * numbers are here as well. If port0.h can be found, it is included first: the compiler
 * then warns about a number that differs.
 */
#ifndef PORT0_OPTIONS_H
#define PORT0_OPTIONS_H

#if __has_include("port0.h")
#include "port0.h"
#endif

#define IP_BIND_PORT_ZERO	0x7030
#define IPV6_BIND_PORT_ZERO	0x7030
#define IP_BOUND_PORT_ZERO	0x7031
#define IPV6_BOUND_PORT_ZERO	0x7031

#endif /* PORT0_OPTIONS_H */
