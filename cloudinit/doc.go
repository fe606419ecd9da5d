// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package cloudinit writes the cloud-init user-data and vendor-data of instances
// of a baked image: who is enrolled, to whom the cards are sealed, and which
// accounts are made.
//
// A [Spec] says it. [Spec.Document] is the document for an owner who has none;
// [Spec.Merge] puts it into the one that the owner has, in whatever form
// cloud-init takes. [Providers] knows how large a document may be. [Module] is
// cloud-init's module that reads the key totp of user-data.
//
// # Promises
//
// Nothing secret is in a document but the enrollment token and what the caller
// put into a channel, both of which are short-lived. The layer in it is one that
// the agent takes: it has been through the agent's own validation, and all
// problems are reported at once, as [Errors].
//
// A merge never changes a byte of the owner's document: it inserts, or it makes
// a MIME multi-part of which the document is a part. What it inserts it reads
// back, and what the owner's keys say is the same as before. Where both want
// different things it refuses, and says at which line and column.
//
// Documents are accepted by cloud-init 20.4 and later. Anybody's bytes may be
// given to Merge: nothing makes it panic, and its work is bounded by [MaxSize].
//
// # Limits
//
// The package touches no file, process, network, clock or random source. A
// token is made by the caller.
//
// What a document of the owner's does when it runs (a script, an #include, a
// jinja template) is not looked into.
package cloudinit
