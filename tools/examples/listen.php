#!/usr/bin/env php
<?php
// SPDX-License-Identifier: GPL-2.0
// An echo server on literal port 0, TCP and UDP, with the extension "sockets":
// php listen.php [ADDRESS]

const IP_BIND_PORT_ZERO = 0x7030;

function port_zero(string $address, int $kind): Socket
{
    $family = str_contains($address, ':') ? AF_INET6 : AF_INET;
    $protocol = $kind === SOCK_STREAM ? SOL_TCP : SOL_UDP;
    $socket = socket_create($family, $kind, $protocol);
    if ($kind === SOCK_STREAM) {
        socket_set_option($socket, SOL_SOCKET, SO_REUSEADDR, 1);
    }
    // false: the module port0 is not loaded. 0 is the level SOL_IP.
    if (!socket_set_option($socket, 0, IP_BIND_PORT_ZERO, 1)
        || !socket_bind($socket, $address, 0)
        || ($kind === SOCK_STREAM && !socket_listen($socket, 128))) {
        exit("port 0: " . socket_strerror(socket_last_error($socket)) . "\n");
    }
    return $socket;
}

$address = $argv[1] ?? '::';
$datagrams = port_zero($address, SOCK_DGRAM);
$listener = port_zero($address, SOCK_STREAM);
$connections = [];

while (true) {
    $ready = [$datagrams, $listener, ...$connections];
    $none = null;
    socket_select($ready, $none, $none, null);
    foreach ($ready as $socket) {
        if ($socket === $datagrams) {
            if (socket_recvfrom($socket, $data, 65536, 0, $host, $port) !== false) {
                // The mark lets it answer peers that send from port 0, too.
                socket_sendto($socket, $data, strlen($data), 0, $host, $port);
            }
        } elseif ($socket === $listener) {
            if (($connection = socket_accept($listener)) !== false) {
                $connections[] = $connection;
            }
        } elseif (($data = socket_read($socket, 65536)) === false || $data === '') {
            socket_close($socket);
            unset($connections[array_search($socket, $connections, true)]);
        } else {
            while ($data !== '' && ($sent = socket_write($socket, $data))) {
                $data = substr($data, $sent);
            }
        }
    }
}
