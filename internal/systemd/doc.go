// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package systemd reads units as systemd loads them, on a machine that need not
// be running: the file, its aliases, the drop-ins of all directories, and the
// command line that results.
//
// # Promises
//
// Load changes nothing and runs nothing. What it does not understand, such as a
// specifier in a value that matters, is an error and never a guess.
//
// # Limits
//
// Specifiers are not expanded. Conditions, and the sections other than the one
// asked for, are not evaluated. Environment of the service manager itself that
// was set at run time (systemctl set-environment) is in no file.
package systemd
