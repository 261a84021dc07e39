// SPDX-License-Identifier: GPL-2.0
// An HTTP server in Node that takes its socket as systemd passes it. Node has no
// way to set the option itself, so port0-run opens the socket:
//
//	port0-run --listen :: --fd -- node activated.js

const http = require("node:http");

const FIRST = 3; // the first descriptor of the protocol

if (Number(process.env.LISTEN_PID) !== process.pid || !(process.env.LISTEN_FDS >= 1)) {
  console.error("no socket was passed: see the top of this file");
  process.exit(1);
}

http
  .createServer((request, response) => {
    response.end(`hello ${request.socket.remoteAddress} port ${request.socket.remotePort}\n`);
  })
  .listen({ fd: FIRST });
