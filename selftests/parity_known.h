/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The known differences between port 0 and other ports, and why they remain. The
 * tests leave out the calls that would show one of them, and no others, and print
 * how many those were.
 */
#ifndef PARITY_KNOWN_H
#define PARITY_KNOWN_H

/*
 * KNOWN_UDP_PEER: for the kernel's lookup, a peer port of 0 means any port.
 * KNOWN_BPF_SENDMSG: the kernel refuses a sendmsg program that sets the port to 0.
 */
enum known { KNOWN_UDP_PEER, KNOWN_BPF_SENDMSG, KNOWN_ROWS };

static const char * const known_difference[KNOWN_ROWS] = {
	[KNOWN_UDP_PEER] = "a UDP socket connected to port 0 also receives from its peer's other ports",
	[KNOWN_BPF_SENDMSG] = "a BPF sendmsg program cannot redirect a datagram to port 0",
};

#endif
