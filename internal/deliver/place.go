// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// Channels of one host differ by their URLs, which are secrets, and the order of
// the policy is no name: a new URL would have the receipts of the old one. So a tag
// of the URL is part of the name: "http:panel.example #5c1d09e2".
//
// Names are in the journal and on the console, and a URL may hold a token that can be
// guessed. A hash of it, even a short one, would let everybody who sees the name try
// guesses. The tag is an HMAC by a random key that lies among the receipts, for root
// alone, and never leaves the machine: to others it is a random number. The key goes
// with the receipts where those are of another machine; without it the receipts have
// no tags to compare.
const (
	keyFile = target.Receipts + "/key"
	keySize = 32
	tagSize = 4
)

// placeKey returns the key, nil if there is none yet.
func placeKey(t *target.Target) []byte {
	if t == nil {
		return nil
	}
	key, err := t.ReadFile(keyFile)
	if err != nil || len(key) != keySize {
		return nil
	}
	return key
}

// makeKey makes the key if a channel needs it.
func (o *Outbox) makeKey(channels []policy.Channel) error {
	needs := func(c policy.Channel) bool { return drivers[c.Type].Place != nil }
	if !slices.ContainsFunc(channels, needs) || placeKey(o.t) != nil {
		return nil
	}
	key := make([]byte, keySize)
	rand.Read(key) // never fails
	return errors.Join(o.makeReceipts(), o.t.WriteFile(keyFile, key, 0o600))
}

func tag(key []byte, place string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(place))
	return hex.EncodeToString(mac.Sum(nil)[:tagSize])
}

// place is where the channel of that name puts envelopes, whoever they are for.
func place(name string) string {
	if _, tag, ok := strings.Cut(name, " #"); ok && len(tag) == 2*tagSize {
		return tag
	}
	if strings.HasPrefix(name, policy.ChannelOpenStack) {
		return policy.ChannelOpenStack
	}
	return name
}

// rename gives the records of older versions, which had no tags, the names of now.
// Such a record may be of another URL than today's, which nobody can tell: rather
// than sent twice, an envelope counts as sent.
func (r *Receipt) rename(rs []route) (changed bool) {
	for _, c := range rs {
		a, ok := r.Channels[c.former]
		if _, has := r.Channels[c.Name()]; !ok || has {
			continue
		}
		if !changed {
			r.Channels, changed = maps.Clone(r.Channels), true
		}
		delete(r.Channels, c.former)
		r.Channels[c.Name()] = a
	}
	return changed
}

// rename does so for all receipts, for good: a URL that comes later is a new one.
func (o *Outbox) rename(rs []route) error {
	all, err := o.allReceipts()
	for _, r := range all {
		if r.rename(rs) {
			err = errors.Join(err, o.saveReceipt(r))
		}
	}
	return err
}
