/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The environment variables by which port0-run passes its options to
 * libport0.so.
 *
 * A set of ports is written "80,8000-8100". If that would be longer than one
 * variable may be, it is written as "x" and one bit for each port in
 * hexadecimal, lowest port first.
 */
#ifndef PORT0_SETTINGS_H
#define PORT0_SETTINGS_H

#define PORT0_LIBRARY		"libport0.so"

/* ports whose bind() means port 0 */
#define PORT0_ENV_MAP		"PORT0_MAP"
/* ports that mean port 0 as a destination */
#define PORT0_ENV_TO		"PORT0_TO"
/* set if the first bind to 0 on an address means port 0 */
#define PORT0_ENV_FIRST		"PORT0_FIRST"
/* set if sockets without a port of their own leave from port 0 */
#define PORT0_ENV_FROM		"PORT0_FROM"
/* set if UDP sockets may send to port 0 */
#define PORT0_ENV_CLIENT	"PORT0_CLIENT"
/* set if a program keeps the right to ports below 1024 when it changes its user */
#define PORT0_ENV_KEEP		"PORT0_KEEP"
/* device:inode of the file that messages are written to */
#define PORT0_ENV_STDERR	"PORT0_STDERR"
/*
 * Sockets on port 0, for the next program, separated by commas: cookie, port that was
 * asked for, process, kind, family, whether for both families, and the address as two
 * numbers, separated by colons
 */
#define PORT0_ENV_SOCKETS	"PORT0_SOCKETS"

/* The length of a set in hexadecimal; shorter ones are written as ranges. */
#define PORT0_SET_HEX		(65536 / 4)

#endif /* PORT0_SETTINGS_H */
