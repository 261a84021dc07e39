// SPDX-License-Identifier: GPL-2.0
/*
 * --keep-right: a server that gives up root before it binds keeps the right to
 * ports below 1024, and no other.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libport0.h"

static int (*next_setuid)(uid_t uid);
static int (*next_seteuid)(uid_t uid);
static int (*next_setreuid)(uid_t real, uid_t effective);
static int (*next_setresuid)(uid_t real, uid_t effective, uid_t saved);

/**
 * rights_settings_read - find the functions that are replaced here
 */
void rights_settings_read(void)
{
	next_setuid = (typeof(next_setuid))dlsym(RTLD_NEXT, "setuid");
	next_seteuid = (typeof(next_seteuid))dlsym(RTLD_NEXT, "seteuid");
	next_setreuid = (typeof(next_setreuid))dlsym(RTLD_NEXT, "setreuid");
	next_setresuid = (typeof(next_setresuid))dlsym(RTLD_NEXT, "setresuid");
}

/*
 * Who keeps the capabilities when the user changes: nobody, this library, or the
 * program itself, as chronyd, named and ntpd do
 */
enum keeper { NOBODY, LIBRARY, PROGRAM };

/* Tell whether capset() works: it is tried with the sets that there are. */
static bool may_drop_rights(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = { 0 };

	return !syscall(SYS_capget, &head, sets) && !syscall(SYS_capset, &head, sets);
}

/*
 * A program may give up root in steps: first the effective user id, then the others. Only
 * the last step takes the capabilities away. errno is not changed.
 */
static enum keeper keep_before(void)
{
	uid_t real, effective, saved;
	int err = errno, bits;

	if (!settings.keep || getresuid(&real, &effective, &saved) ||
	    (real && effective && saved))
		return NOBODY;
	bits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);
	if (bits > 0 && bits & (SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP))
		return PROGRAM;
	/* Otherwise all of root's rights would be kept. */
	if (!may_drop_rights() || prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)) {
		report("keep the right to bind port 0", "capset() or prctl() is refused, by a seccomp filter or a security module");
		errno = err;
		return NOBODY;
	}
	return LIBRARY;
}

/*
 * Drop all capabilities but one, unless the program keeps others on purpose. If the user
 * id can be restored, as after seteuid(), keep what the kernel keeps for that.
 */
static void keep_after(enum keeper keeper)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = { 0 };
	const __u32 right = 1U << CAP_NET_BIND_SERVICE;
	uid_t real, effective, saved;
	int err = errno;

	if (keeper == NOBODY)
		return;
	if (keeper == LIBRARY)
		prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
	if (!getresuid(&real, &effective, &saved) && effective &&
	    !syscall(SYS_capget, &head, sets)) {
		if (keeper == LIBRARY)
			sets[0].effective = sets[1].effective = 0;
		sets[0].effective |= sets[0].permitted & right;
		if (keeper == LIBRARY && real && saved) {
			sets[0].permitted &= right;
			sets[1].permitted = 0;
			sets[0].inheritable &= right;
			sets[1].inheritable = 0;
		}
		if (syscall(SYS_capset, &head, sets))
			report("keep the right to bind port 0", "capset() failed");
	}
	errno = err;
}

#define CHANGE_USER(call)						\
	do {								\
		enum keeper keeper;					\
		int ret = -1;						\
									\
		settings_read();					\
		keeper = keep_before();					\
		ret = call;						\
		keep_after(keeper);					\
		return ret;						\
	} while (0)

EXPORT int setuid(uid_t uid)
{
	CHANGE_USER(next_setuid ? next_setuid(uid) : (int)syscall(SYS_setuid, uid));
}

EXPORT int seteuid(uid_t uid)
{
	CHANGE_USER(next_seteuid ? next_seteuid(uid) : (int)syscall(SYS_setresuid, -1, uid, -1));
}

EXPORT int setreuid(uid_t real, uid_t effective)
{
	CHANGE_USER(next_setreuid ? next_setreuid(real, effective) :
		    (int)syscall(SYS_setreuid, real, effective));
}

EXPORT int setresuid(uid_t real, uid_t effective, uid_t saved)
{
	CHANGE_USER(next_setresuid ? next_setresuid(real, effective, saved) :
		    (int)syscall(SYS_setresuid, real, effective, saved));
}
