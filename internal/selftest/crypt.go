// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import (
	"crypto/sha512"
	"strings"
)

// crypt64 is the alphabet of crypt(5).
const crypt64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// sha512crypt hashes a password for shadow(5) by the method $6$ of crypt(5), with
// its 5000 rounds. The steps are those of Drepper's "Unix crypt using SHA-256 and
// SHA-512". The salt has 16 characters of crypt64 at most.
func sha512crypt(password, salt string) string {
	p, s := []byte(password), []byte(salt)
	b := digest(p, s, p)
	a := sha512.New()
	a.Write(p)
	a.Write(s)
	a.Write(repeat(b, len(p)))
	for n := len(p); n > 0; n >>= 1 {
		if n&1 != 0 {
			a.Write(b)
		} else {
			a.Write(p)
		}
	}
	sum := a.Sum(nil)

	dp := sha512.New()
	for range p {
		dp.Write(p)
	}
	ds := sha512.New()
	for range 16 + int(sum[0]) {
		ds.Write(s)
	}
	pp, ss := repeat(dp.Sum(nil), len(p)), repeat(ds.Sum(nil), len(s))
	for i := range 5000 {
		c := sha512.New()
		if i%2 != 0 {
			c.Write(pp)
		} else {
			c.Write(sum)
		}
		if i%3 != 0 {
			c.Write(ss)
		}
		if i%7 != 0 {
			c.Write(pp)
		}
		if i%2 != 0 {
			c.Write(sum)
		} else {
			c.Write(pp)
		}
		sum = c.Sum(nil)
	}

	var out strings.Builder
	out.WriteString("$6$" + salt + "$")
	write := func(v uint, chars int) {
		for range chars {
			out.WriteByte(crypt64[v&63])
			v >>= 6
		}
	}
	// Three bytes a group, whose places go round.
	i, j, k := 0, 21, 42
	for range 21 {
		write(uint(sum[i])<<16|uint(sum[j])<<8|uint(sum[k]), 4)
		i, j, k = j+1, k+1, i+1
	}
	write(uint(sum[63]), 2)
	return out.String()
}

func digest(parts ...[]byte) []byte {
	h := sha512.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// repeat returns n bytes of b, over and over.
func repeat(b []byte, n int) []byte {
	out := make([]byte, 0, n)
	for len(out) < n {
		out = append(out, b[:min(len(b), n-len(out))]...)
	}
	return out
}
