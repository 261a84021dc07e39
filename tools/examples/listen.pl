#!/usr/bin/env perl
# SPDX-License-Identifier: GPL-2.0
# An echo server on literal port 0, IPv4 and IPv6, TCP and UDP.
use strict;
use warnings;
use IO::Select;
use Socket qw(:DEFAULT IPPROTO_IP IPPROTO_IPV6 IPV6_V6ONLY IN6ADDR_ANY pack_sockaddr_in6);

use constant IP_BIND_PORT_ZERO => 0x7030;

# Writing to a peer that has gone must not end the server.
$SIG{PIPE} = "IGNORE";

sub port_zero {
	my ($kind) = @_;
	socket(my $socket, AF_INET6, $kind, 0) or die "socket: $!\n";
	setsockopt($socket, IPPROTO_IPV6, IPV6_V6ONLY, pack("i", 0));
	setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, pack("i", $kind == SOCK_STREAM));
	setsockopt($socket, IPPROTO_IP, IP_BIND_PORT_ZERO, pack("i", 1))
		or die "is the module port0 loaded? $!\n";
	bind($socket, pack_sockaddr_in6(0, IN6ADDR_ANY)) or die "bind: $!\n";
	return $socket;
}

my $datagrams = port_zero(SOCK_DGRAM);
my $listener = port_zero(SOCK_STREAM);
listen($listener, 128) or die "listen: $!\n";

my $select = IO::Select->new($datagrams, $listener);
while (1) {
	for my $socket ($select->can_read) {
		if ($socket == $datagrams) {
			my $peer = recv($socket, my $data, 65536, 0);
			# The mark lets it answer peers that send from port 0, too.
			send($socket, $data, 0, $peer) if defined $peer;
		} elsif ($socket == $listener) {
			my $connection;
			$select->add($connection) if accept($connection, $listener);
		} elsif (sysread($socket, my $data, 65536)) {
			syswrite($socket, $data);
		} else {
			$select->remove($socket);
			close($socket);
		}
	}
}
