# SPDX-License-Identifier: GPL-2.0
# awk -f probes.awk probes.c ERRORS: prints probed.h. ERRORS is what the compiler has
# printed for probes.c. A probe reaches from its PROBE(NAME) to the next one.

FNR == NR {
	if (match($0, /^PROBE\([A-Z0-9_]+\)/)) {
		name[++n] = substr($0, 7, RLENGTH - 7)
		line[n] = FNR
	}
	next
}

/: (fatal )?error: / {
	# FILE:LINE:COLUMN: error: TEXT
	found = split($0, part, ":")
	for (i = n; i && !(part[1] ~ /module\/probes\.c$/ && part[2] >= line[i]); i--)
		;
	if (i)
		missing[name[i]] = 1
	else if (!stray)
		stray = $0
}

END {
	if (!n || stray) {
		print "port0: this kernel's headers do not compile: " stray > "/dev/stderr"
		exit 1
	}
	if (missing["CONTROL_YES"] || !missing["CONTROL_NO"]) {
		print "port0: cannot tell what this kernel's headers have: the compiler's errors are not understood; please report it" > "/dev/stderr"
		exit 1
	}
	# Kernels before 5.10 lack the one or the other, those of RHEL 8 only the latter.
	if (missing["SOCKPTR"] ||
	    (missing["CAN_NONLOCAL_BIND"] && missing["ADDR_VALID_OR_NONLOCAL"])) {
		print "port0: this kernel is too old: port0 is for Linux 5.10 and later" > "/dev/stderr"
		exit 1
	}
	print "/* Made from probes.c. */"
	for (i = 1; i <= n; i++)
		if (missing[name[i]])
			print "/* no PORT0_HAVE_" name[i] " */"
		else
			print "#define PORT0_HAVE_" name[i] " 1"
}
