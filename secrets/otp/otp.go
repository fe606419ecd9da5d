// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package otp makes the secret and the backup codes of one user, and reads and
// writes the state file from which pam_google_authenticator checks them.
//
// What it makes is what that module can check and what every authenticator app
// reads: time-based codes (RFC 6238) over HMAC-SHA-1 with six digits and a
// period of 30 seconds, and a secret of 20 bytes, as RFC 4226 recommends, which
// is 32 characters of base32 without padding.
//
// The package reads no file, no clock and no random source of its own. Values
// that hold a secret print as a placeholder and encode as one in JSON; errors
// quote names, never secrets, codes or lines of a state file.
package otp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	pquerna "github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"
)

// Every code is made this way; there is no choice to get wrong.
const (
	Algorithm = "SHA1"
	Digits    = 6
	Period    = 30 // seconds
)

// MaxBackupCodes is how many backup codes an enrollment may have at most, as
// many as google-authenticator(1) makes.
const MaxBackupCodes = 10

const (
	secretBytes = 20 // RFC 4226 section 4, R6

	// The module takes a backup code for one only if it has eight digits and
	// no leading zero: a code below 10000000 would end its list.
	minBackupCode = 10_000_000
	maxBackupCode = 99_999_999
)

var (
	// ErrBackupCodes means that a number of backup codes is out of range.
	ErrBackupCodes = errors.New("must be a number of backup codes from 0 to 10")

	// ErrRandom means that the random source failed, or gives so little that
	// codes made of it would not differ.
	ErrRandom = errors.New("random source failed")

	// ErrSecret means that a secret is not base32 without padding.
	ErrSecret = errors.New("must be base32 without padding")
)

// Params say whom an enrollment is for.
type Params struct {
	Issuer      string // who runs the servers, as [ValidIssuer] has it
	Account     string // user@host, as [ValidAccount] has it
	BackupCodes int    // how many, up to [MaxBackupCodes]
}

// An Enrollment is the secret of one user and what belongs to it. It prints as
// a placeholder.
type Enrollment struct {
	Secret      string   // 32 characters of base32
	URI         string   // otpauth:// key URI, for the QR code
	BackupCodes []string // 10000000 to 99999999, all different
}

// New makes an enrollment of 20 random bytes and as many backup codes as asked
// for. The errors are a [*NameError], [ErrBackupCodes] and [ErrRandom].
//
// The URI is the one that Google's Key-Uri-Format describes: the issuer is the
// label's prefix and a parameter as well. Algorithm, digits and period are left
// out, since they are the defaults and make the QR code larger.
func New(p Params, rand io.Reader) (Enrollment, error) {
	if err := ValidIssuer(p.Issuer); err != nil {
		return Enrollment{}, err
	}
	if err := ValidAccount(p.Account); err != nil {
		return Enrollment{}, err
	}
	if p.BackupCodes < 0 || p.BackupCodes > MaxBackupCodes {
		return Enrollment{}, fmt.Errorf("backup codes %d: %w", p.BackupCodes, ErrBackupCodes)
	}
	key, err := totp.Generate(totp.GenerateOpts{
		Issuer:      p.Issuer,
		AccountName: p.Account,
		SecretSize:  secretBytes,
		Period:      Period,
		Digits:      pquerna.DigitsSix,
		Algorithm:   pquerna.AlgorithmSHA1,
		Rand:        rand,
	})
	if err != nil {
		return Enrollment{}, fmt.Errorf("%w: %w", ErrRandom, err)
	}
	codes, err := backupCodes(p.BackupCodes, rand)
	if err != nil {
		return Enrollment{}, err
	}
	return Enrollment{
		Secret:      key.Secret(),
		URI:         keyURI(p.Issuer, p.Account, key.Secret()),
		BackupCodes: codes,
	}, nil
}

// Code returns the code of a secret at a time, six digits.
func Code(secret string, t time.Time) (string, error) {
	if !validSecret(secret) {
		return "", fmt.Errorf("secret: %w", ErrSecret)
	}
	code, err := totp.GenerateCodeCustom(secret, t, totp.ValidateOpts{
		Period:    Period,
		Digits:    pquerna.DigitsSix,
		Algorithm: pquerna.AlgorithmSHA1,
	})
	if err != nil {
		return "", fmt.Errorf("secret: %w", ErrSecret) // not err: it may quote the secret
	}
	return code, nil
}

// backupCodes draws n codes, each equally likely, none twice.
func backupCodes(n int, rand io.Reader) ([]string, error) {
	const (
		span = maxBackupCode - minBackupCode + 1
		// Draws from here on up would make the lower codes likelier.
		limit = (1 << 32) / span * span
		// A sound source needs 1.02 draws a code; one that repeats itself
		// must not keep a machine from booting.
		maxDraws = 1000
	)
	codes := make([]string, 0, n)
	var b [4]byte
	for draw := 0; len(codes) < n; draw++ {
		if draw == maxDraws {
			return nil, fmt.Errorf("%w: it repeats itself", ErrRandom)
		}
		if _, err := io.ReadFull(rand, b[:]); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRandom, err)
		}
		v := binary.BigEndian.Uint32(b[:])
		if int64(v) >= limit {
			continue
		}
		code := strconv.Itoa(minBackupCode + int(v%span))
		if !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
	}
	return codes, nil
}
