// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package seal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
)

var (
	// ErrNoEnvelope means that there is no age file in the input.
	ErrNoEnvelope = errors.New("no envelope found")

	// ErrSeveral means that there is more than one armored age file.
	ErrSeveral = errors.New("more than one envelope found")

	// ErrWrongIdentity means that the envelope is whole, as far as can be told
	// without its key, but sealed to others.
	ErrWrongIdentity = errors.New("none of the identities opens this envelope")

	// ErrDamaged means that the envelope is cut short or altered.
	ErrDamaged = errors.New("the envelope is damaged or cut short")
)

const (
	magic       = "age-encryption.org/v1\n"
	base64Magic = "YWdlLWVuY3J5cHRpb24ub3JnL3Yx" // of magic without its newline
)

// Open returns the text of an envelope: a binary age file, an armored one, or
// its base64 as channels with little room carry it. Line ends may be CRLF, and
// an armored one may have blanks, and lines of anything else, around it, as when
// it was copied out of a mail.
//
// The errors are [ErrNoEnvelope], [ErrSeveral], [ErrDamaged], [ErrTooLarge],
// [ErrManyRecipients] and [ErrWrongIdentity]. Text is returned only if all of it is authentic.
func Open(envelope []byte, ids ...age.Identity) ([]byte, error) {
	file, err := Dearmor(envelope)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%w; there are none", ErrWrongIdentity)
	}
	n, err := CountRecipients(file)
	if err != nil {
		return nil, err
	}
	if n > MaxRecipients {
		return nil, ErrManyRecipients
	}
	r, err := age.Decrypt(bytes.NewReader(file), ids...)
	if no := (*age.NoIdentityMatchError)(nil); errors.As(err, &no) {
		return nil, fmt.Errorf("%w; it is sealed to %s", ErrWrongIdentity, strings.Join(stanzaKinds(no.StanzaTypes), ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	text, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return text, nil
}

// MaxRecipients is how many recipients an envelope has at most: a card names up to
// 64, and as many for escrow. Opening tries each identity on each of them.
const MaxRecipients = 128

// ErrManyRecipients means that an envelope has more than [MaxRecipients].
var ErrManyRecipients = fmt.Errorf("is sealed to more than %d recipients", MaxRecipients)

const (
	// minHeader is the size in bytes of the shortest header: of an X25519 recipient.
	minHeader = len(magic) + len("-> X25519 ") + 43 + 1 + 43 + 1 + len("--- ") + 43 + 1

	// minPayload is the size in bytes of the shortest payload: a nonce, and the tag of
	// an empty text.
	minPayload = 16 + 16
)

// CheckFile returns an error unless a binary age file has the form of an envelope: a
// header with a recipient, and a payload. It need not open. The errors are
// [ErrDamaged] and [ErrManyRecipients].
func CheckFile(file []byte) error {
	n, size, err := readHeader(file)
	switch {
	case err != nil:
		return err
	case n > MaxRecipients:
		return ErrManyRecipients
	case size < minHeader || len(file)-size < minPayload:
		return fmt.Errorf("%w: it is shorter than any envelope", ErrDamaged)
	}
	return nil
}

// CountRecipients returns how many recipients a binary age file is sealed to. The
// error is [ErrDamaged].
func CountRecipients(file []byte) (int, error) {
	n, _, err := readHeader(file)
	return n, err
}

// readHeader returns how many recipients a header has, and its size in bytes.
func readHeader(file []byte) (recipients, size int, err error) {
	header, err := age.ExtractHeader(bytes.NewReader(file))
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return bytes.Count(header, []byte("\n-> ")), len(header), nil
}

// Armor returns a binary age file as text, with lines of 64 columns and a
// newline at its end.
func Armor(sealed []byte) ([]byte, error) {
	if !bytes.HasPrefix(sealed, []byte(magic)) {
		return nil, ErrNoEnvelope
	}
	var b bytes.Buffer
	w := armor.NewWriter(&b)
	if _, err := w.Write(sealed); err != nil {
		return nil, fmt.Errorf("armor: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("armor: %w", err)
	}
	return b.Bytes(), nil
}

// Dearmor returns the binary age file in any of the forms that [Open] takes. It
// looks at the form only: what it returns need not open. The errors are
// [ErrNoEnvelope], [ErrSeveral], [ErrDamaged] and [ErrTooLarge].
func Dearmor(envelope []byte) ([]byte, error) {
	if len(envelope) > MaxSize {
		return nil, fmt.Errorf("input of %d bytes: %w", len(envelope), ErrTooLarge)
	}
	if bytes.HasPrefix(envelope, []byte(magic)) {
		return envelope, nil
	}
	if bytes.HasPrefix(envelope, []byte(strings.TrimSuffix(magic, "\n")+"\r\n")) {
		return nil, fmt.Errorf("%w: its line ends were changed, as if it were text", ErrDamaged)
	}
	s := strings.TrimSpace(strings.TrimPrefix(string(envelope), "\ufeff"))
	if strings.HasPrefix(s, base64Magic) {
		file, err := base64.StdEncoding.Strict().DecodeString(strings.Join(strings.Fields(s), ""))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return file, nil
	}
	block, err := armored(s)
	if err != nil {
		return nil, err
	}
	file, err := io.ReadAll(armor.NewReader(strings.NewReader(block)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return file, nil
}

// armored finds the armored file in a text, takes the blanks off its lines that
// mail and terminals put there, and puts lines that they have broken together
// again.
func armored(s string) (string, error) {
	switch strings.Count(s, armor.Header) {
	case 0:
		return "", ErrNoEnvelope
	case 1:
	default:
		return "", fmt.Errorf("%w; give them one by one", ErrSeveral)
	}
	_, body, _ := strings.Cut(s, armor.Header)
	body, _, whole := strings.Cut(body, armor.Footer)
	if !whole {
		return "", fmt.Errorf("%w: its last line is missing", ErrDamaged)
	}
	var text strings.Builder
	for line := range strings.Lines(body) {
		text.WriteString(strings.TrimSpace(line))
	}
	var b strings.Builder
	b.WriteString(armor.Header + "\n")
	for line := range slices.Chunk([]byte(text.String()), armorColumns) {
		b.Write(line)
		b.WriteByte('\n')
	}
	b.WriteString(armor.Footer + "\n")
	return b.String(), nil
}

// armorColumns is the length of an armored line, see https://c2sp.org/age.
const armorColumns = 64

// stanzaKinds says in words what an envelope's header tells anybody.
func stanzaKinds(types []string) []string {
	kinds := make([]string, len(types))
	for i, t := range types {
		switch t {
		case "X25519":
			kinds[i] = "an age key"
		case "mlkem768x25519":
			kinds[i] = "a post-quantum age key"
		case "p256tag":
			kinds[i] = "a hardware key"
		case "mlkem768p256tag":
			kinds[i] = "a post-quantum hardware key"
		case "ssh-ed25519", "ssh-rsa":
			kinds[i] = "an " + t + " key"
		case "scrypt":
			kinds[i] = "a passphrase"
		default:
			kinds[i] = fmt.Sprintf("a key of type %.20q", t)
		}
	}
	return kinds
}
