// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package nspawn is the middle part of the lab, between rootfs and vm: it boots a
// Debian root with systemd-nspawn. The machine runs its real systemd, cloud-init,
// units, sshd and PAM, and it is up within seconds.
//
// The disk of a machine is a [rootfs.Root]. A test builds and bakes it once, clones
// it, gives the clone a [Seed], and boots it:
//
//	root, err := baked.Clone()
//	m, err := nspawn.New(root)
//	err = m.Insert(nspawn.Seed{InstanceID: "i-1", Hostname: "web1", UserData: "#cloud-config\n"})
//	err = m.Start(ctx)  // boots it and waits until systemd has finished
//	m.Addr()            // sshd, on this machine's loopback
//	m.Run(ctx, "systemctl", "status", "totp-agent")
//	err = m.Cut()       // kills PID 1; the disk keeps what was written
//
// # Promises
//
// A machine has its own PID, mount, UTS, IPC, network and cgroup namespaces. Its
// network has a loopback interface only. [Machine.Dial] and [Machine.HostCommand]
// reach it from inside its network namespace, [Machine.Addr] and [Machine.Forward]
// from this machine's loopback. When the program that made a machine ends, also by
// SIGKILL, the kernel ends the machine's processes and drops its mounts; a small
// process outlives the program until the machine's cgroups are removed.
//
// Nothing waits for a fixed time: each wait ends with an event or after a limit that
// a busy machine does not reach.
//
// # Limits
//
// It needs what rootfs needs, systemd-nspawn, and cgroup v2; [Available] reports what
// is missing. PID 1 of this machine need not be systemd. The kernel is this
// machine's, so this package proves nothing about kernel, initrd, boot loader, virtio
// ports, serial gettys, network datasources, or data that a power cut loses: the disk
// is in memory, and everything that was written survives.
package nspawn
