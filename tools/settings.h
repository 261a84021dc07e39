/* SPDX-License-Identifier: GPL-2.0 */
/* What port0-run tells libport0.so, by way of the environment. */
#ifndef PORT0_SETTINGS_H
#define PORT0_SETTINGS_H

/* ports that mean port 0, with commas between them */
#define PORT0_ENV_MAP		"PORT0_MAP"
/* ports that, connected to, mean port 0 */
#define PORT0_ENV_TO		"PORT0_TO"
/* set if UDP sockets may send to port 0 */
#define PORT0_ENV_CLIENT	"PORT0_CLIENT"
/* device:inode of the file that messages may be written to */
#define PORT0_ENV_STDERR	"PORT0_STDERR"

#endif /* PORT0_SETTINGS_H */
