package whatsapp

import "time"

// skew is how far the host's clock must be off before it is not believed: what
// the server says is in whole seconds, and has been on its way.
const skew = 10 * time.Second

// noteClock is told the time by the service's clock.
func (s *Service) noteClock(server time.Time) {
	if server.IsZero() {
		return
	}
	off := server.Sub(s.cfg.Now())
	if off.Abs() < skew {
		off = 0
	}
	if old := time.Duration(s.clock.Swap(int64(off))); (old - off).Abs() >= skew {
		if off == 0 {
			s.log.Info("the clock of this host is right again")
		} else {
			s.log.Warn("the clock of this host is wrong; deadlines go by WhatsApp's. Set it, or connecting will fail",
				"off", (-off).Round(time.Second).String())
		}
	}
}

// ClockOffset is what must be added to the host's clock to have the service's,
// as it was told last: by the Date of its web host, or at a login. 0 where the
// two agree, or nothing is known.
func (s *Service) ClockOffset() time.Duration { return time.Duration(s.clock.Load()) }
