#!/usr/bin/env ruby
# SPDX-License-Identifier: GPL-2.0
# An echo server on literal port 0, IPv4 and IPv6, TCP and UDP.

require "socket"

IP_BIND_PORT_ZERO = 0x7030

def port_zero(kind)
  socket = Socket.new(:INET6, kind)
  socket.setsockopt(:IPV6, :V6ONLY, 0)
  socket.setsockopt(:SOCKET, :REUSEADDR, kind == :STREAM)
  # Errno::ENOPROTOOPT: the module port0 is not loaded
  socket.setsockopt(Socket::IPPROTO_IP, IP_BIND_PORT_ZERO, 1)
  socket.bind(Addrinfo.new(Socket.sockaddr_in(0, "::")))
  socket
end

datagrams = port_zero(:DGRAM)
Thread.new do
  loop do
    data, peer = datagrams.recvfrom(65_536)
    # The mark lets it answer peers that send from port 0, too.
    datagrams.send(data, 0, peer)
  rescue SystemCallError => e
    warn e.message
  end
end

listener = port_zero(:STREAM)
listener.listen(128)
loop do
  connection, = listener.accept
  Thread.new do
    IO.copy_stream(connection, connection)
  rescue SystemCallError
    # The peer has gone.
  ensure
    connection.close
  end
end
