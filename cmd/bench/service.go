package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/infra/wasim/memstore"
)

const (
	firstAccount = 491700000001
	firstContact = 491510000001
	awaitAtMost  = 4 * time.Minute
)

// service is the role of the simulated service. What it measures it takes from
// the service's own records.
type service struct {
	common
	s        *wasim.Server
	accounts int
	names    map[string]string // of sessions, by number
	sink     *sink
	traffic  *traffic
}

// Where is how the service is reached.
type Where struct{ URL, RootKey string }

// Open starts it.
func (r *service) Open(_ None, reply *Where) (err error) {
	if r.s, err = wasim.New(wasim.Options{Control: "off", QuietPhone: true, Receipts: wasim.ReceiptsNone}); err != nil {
		return err
	}
	if err := r.s.Start(); err != nil {
		return err
	}
	*reply = Where{r.s.URL(), r.s.RootKeyHex()}
	return nil
}

// Enrol links n devices, each of an account of its own.
func (r *service) Enrol(n int, reply *[]Account) error {
	for range n {
		number := fmt.Sprint(firstAccount + r.accounts)
		d := memstore.New()
		if _, err := r.s.Enrol(context.Background(), number, d); err != nil {
			return err
		}
		a, err := newAccount(fmt.Sprintf("s%05d", r.accounts), number, d)
		if err != nil {
			return err
		}
		if r.names == nil {
			r.names = map[string]string{}
		}
		r.names[number] = a.Name
		r.accounts++
		*reply = append(*reply, a)
	}
	return nil
}

// each calls f with the device of each account.
func (r *service) each(numbers []string, f func(context.Context, int, *wasim.Device) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), awaitAtMost)
	defer cancel()
	for i, number := range numbers {
		d, err := r.s.Device(number)
		if err != nil {
			return err
		}
		if err := f(ctx, i, d); err != nil {
			return fmt.Errorf("device %d of %d: %w", i+1, len(numbers), err)
		}
	}
	return nil
}

// AwaitOnline blocks until the devices of all numbers are online and tells when
// that was.
func (r *service) AwaitOnline(numbers []string, reply *time.Time) error {
	err := r.each(numbers, func(ctx context.Context, _ int, d *wasim.Device) error { return d.WaitOnline(ctx) })
	*reply = time.Now()
	return err
}

// AwaitOffline blocks until none of the devices has a socket.
func (r *service) AwaitOffline(numbers []string, _ *None) error {
	return r.each(numbers, func(ctx context.Context, _ int, d *wasim.Device) error { return d.WaitOffline(ctx) })
}

// Burst is messages to each of some devices, from a contact of its own.
type Burst struct {
	Numbers []string
	Each    int
}

// Fate is what became of a burst.
type Fate struct {
	Messages int
	Took     time.Duration // from the first frame that left to the last acknowledgement
	Enc      map[string]int
	Again    int // delivered more than once
	Retries  int // retry receipts
	Refused  int // acknowledged with an error
}

// contact is the one who writes to the account of a number.
func (r *service) contact(number string) (*wasim.Contact, error) {
	var n int64
	if _, err := fmt.Sscan(number, &n); err != nil {
		return nil, err
	}
	return r.s.Contact(fmt.Sprint(firstContact + n - firstAccount)), nil
}

// Contact is the number of the one who writes to an account.
func (r *service) Contact(number string, reply *string) error {
	c, err := r.contact(number)
	if err != nil {
		return err
	}
	*reply = c.Number()
	return nil
}

// AwaitReply blocks until the contacts of all numbers have read a message.
func (r *service) AwaitReply(numbers []string, _ *None) error {
	return r.each(numbers, func(ctx context.Context, i int, _ *wasim.Device) error {
		c, err := r.contact(numbers[i])
		if err != nil {
			return err
		}
		return c.WaitCount(ctx, 1)
	})
}

// Send makes the messages of a burst wait, encrypted, lets them go all at once
// and waits until all are acknowledged.
func (r *service) Send(b Burst, reply *Fate) error {
	r.s.ResetTruth()
	gate, err := r.s.Inject(wasim.Fault{Kind: wasim.Zombie, Now: true})
	if err != nil {
		return err
	}
	for m := range b.Each {
		err := r.each(b.Numbers, func(ctx context.Context, i int, d *wasim.Device) error {
			c, err := r.contact(b.Numbers[i])
			if err != nil {
				return err
			}
			_, err = c.SendText(ctx, d.JID().String(), fmt.Sprintf("message %d of a text of usual length, neither short nor long", m))
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := r.s.ClearFault(gate); err != nil {
		return err
	}
	if err := r.each(b.Numbers, func(ctx context.Context, _ int, d *wasim.Device) error { return d.WaitDrained(ctx) }); err != nil {
		return err
	}
	return reply.of(r.s.Truth(), b.Each*len(b.Numbers))
}

// Write sends one message to an account and does not wait for anything.
func (r *service) Write(number string, _ *None) error {
	c, err := r.contact(number)
	if err != nil {
		return err
	}
	_, err = c.SendText(context.Background(), number, "hello")
	return err
}

// of reads a burst's fate in the records.
func (f *Fate) of(t wasim.Truth, want int) error {
	var first, last time.Time
	f.Enc = map[string]int{}
	for _, m := range t.Incoming {
		if m.Delivered == nil || m.Acked == nil {
			return errors.New("a message was not acknowledged")
		}
		if first.IsZero() || m.Delivered.Before(first) {
			first = *m.Delivered
		}
		if m.Acked.After(last) {
			last = *m.Acked
		}
		f.Messages++
		f.Enc[m.Enc]++
		f.Retries += m.Retries
		if m.Deliveries > 1 {
			f.Again++
		}
		if m.Error != "" {
			f.Refused++
		}
	}
	if f.Messages != want {
		return fmt.Errorf("%d messages have a record, %d were sent", f.Messages, want)
	}
	f.Took = last.Sub(first)
	return nil
}

// Inject injects a fault.
func (r *service) Inject(f wasim.Fault, _ *None) error {
	_, err := r.s.Inject(f)
	return err
}

// Scan is a QR text and who scans it.
type Scan struct{ Code, Number string }

// Scan pairs as that number's phone, and answers the device's JID.
func (r *service) Scan(q Scan, reply *string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d, err := r.s.Phone(q.Number).Scan(ctx, q.Code)
	if err != nil {
		return err
	}
	*reply = d.JID().String()
	return nil
}

// Sockets are those of all devices so far.
func (r *service) Sockets(_ None, reply *[]wasim.Socket) error {
	*reply = r.s.Truth().Sockets
	return nil
}
