// SPDX-License-Identifier: GPL-2.0
/*
 * Makes ftrace disable itself, as the kernel does when it finds that its code
 * was changed unexpectedly. Functions that are hooked then stay hooked until
 * the next boot.
 */
#include <linux/kprobes.h>
#include <linux/module.h>

static int __init port0_kill_init(void)
{
	/* Not exported: a kprobe that is never armed tells the address. */
	struct kprobe kp = {
		.symbol_name = "ftrace_kill",
		.flags = KPROBE_FLAG_DISABLED,
	};
	void (*kill)(void);
	int err;

	err = register_kprobe(&kp);
	if (err)
		return err;
	kill = (void *)kp.addr;
	unregister_kprobe(&kp);
	kill();
	return 0;
}

static void __exit port0_kill_exit(void)
{
}

module_init(port0_kill_init);
module_exit(port0_kill_exit);

MODULE_DESCRIPTION("Switches ftrace off for the tests of port0");
MODULE_LICENSE("GPL");
