/* The ownership of one session between two workers, as package lease does it:
   heartbeats with trust that runs from the send, declared deaths, claims whose
   effect may come late, planned hand-over, release, freezes, and a worker that
   joins again under a new incarnation after its death.

   To check it (apt-get install spin gcc; about a minute, 1 GB):

     spin -a ownership.pml && cc -O2 -DSAFETY -DNOREDUCE -DCOLLAPSE -o pan pan.c && ./pan -m100000

   "errors: 0" is a pass. -DPAUSE=0 leaves the freezes out: a few seconds. Each of
   these is the protocol with one rule broken, and must end with "errors: 1":

     spin -a -DF=2      ownership.pml    trust lasts as long as a takeover takes
     spin -a -DLATE=1   ownership.pml    trust begins at the reply instead of the send
     spin -a -DDECLARE=0 ownership.pml   a claim that only looked at the heartbeat
     spin -a -DFENCE=0  ownership.pml    a write that is not checked against owner and epoch
     spin -a -DCLOSE=0  ownership.pml    a hand-over before the connection is closed
     spin -a -DASK=0    ownership.pml    a session is connected without asking for trust
     spin -a -DBURY=0   ownership.pml    a new incarnation that does not wait for the old one's end

   Time is counted in steps; F and T are the trust and takeover times. Worker w
   speaks for incarnation w, and after its death for w+2. NOBODY owns what was
   released. */

#ifndef F
#define F 1
#endif
#ifndef T
#define T 2
#endif
#ifndef MAXT
#define MAXT 5     /* the last moment */
#endif
#ifndef HBMAX
#define HBMAX 2    /* heartbeats of an incarnation, its joining included */
#endif
#ifndef EPMAX
#define EPMAX 4    /* changes of the owner */
#endif
#ifndef PAUSE
#define PAUSE 1
#endif
#ifndef LATE
#define LATE 0
#endif
#ifndef DECLARE
#define DECLARE 1
#endif
#ifndef FENCE
#define FENCE 1
#endif
#ifndef CLOSE
#define CLOSE 1
#endif
#ifndef ASK
#define ASK 1
#endif
#ifndef BURY
#define BURY 1
#endif

#define NOBODY 4

/* What the store holds. */
byte hb[4];              /* heartbeat counters */
bool dead[4];
byte owner = 0;
byte ep = 1;

byte now;                /* the time of the world */

/* What the workers hold. */
byte inc[2];             /* for whom it speaks */
byte last[2];            /* trust runs from here */
byte sent[2];            /* a beat that is under way was sent then */
byte beat[2];            /* 0 none, 1 sent, 2 counted, 3 refused: dead */
byte seenI[2];           /* the other incarnation whose counter it watches */
byte seenV[2];           /* and that counter */
byte seenAt[2];          /* and since when it has stood still */
byte mine[2];            /* the epoch at which it runs the session; 0: it does not */
bool sock[2];            /* it is connected */
bool paused[2];
bool stale[2];           /* it was paused and has not looked at the clock since */

/* A claim that is under way, or whose sender has given it up. */
byte want[2];            /* the epoch that it names; 0: none */
byte from[2];            /* the owner that it names */
byte as[2];              /* for whom it is made */
bool waits[2];           /* its sender waits for the answer */

/* A write that is under way: it may arrive long after it was sent. */
byte wrEp[2];
byte wrAs[2];

#define TRUST(w)   (now - last[w] < F)
#define RUNS(w)    (!paused[w])
#define OVERDUE(w) (RUNS(w) && sock[w] && !TRUST(w))

/* The clock does not pass the moment at which somebody who is awake fences. */
active proctype clock() {
  do
  :: atomic { now < MAXT && !OVERDUE(0) && !OVERDUE(1) -> now++ }
  :: now >= MAXT -> break
  od
}

/* A worker learns that its incarnation is dead, ends all it has, and joins anew. */
inline die(w) {
  if :: BURY -> sock[w] = false :: else fi;
  mine[w] = 0; beat[w] = 0; sent[w] = 0; waits[w] = false;
  if
  :: inc[w] < 2 -> inc[w] = inc[w] + 2; hb[inc[w]] = 1; last[w] = now
  :: else -> skip   /* two lives are enough to look at: no trust ever again */
  fi
}

inline connect(w) {
  assert(!sock[w]);                       /* its own old connection is closed */
  assert(owner == inc[w]);                /* who is trusted owns what it runs */
  if
  :: sock[1-w] -> assert(paused[1-w] || stale[1-w]); sock[1-w] = false   /* only a frozen holder is kicked */
  :: else
  fi;
  sock[w] = true
}

proctype worker(bit w) {
  do
  /* Heartbeats. One may be lost on its way there or back. */
  :: atomic { RUNS(w) && beat[w] == 0 && hb[inc[w]] < HBMAX && !(dead[inc[w]] && inc[w] > 1) -> beat[w] = 1; sent[w] = now }
  :: atomic { beat[w] == 1 -> if :: !dead[inc[w]] -> hb[inc[w]]++; beat[w] = 2 :: else -> beat[w] = 3 fi }
  :: atomic { beat[w] == 1 || beat[w] == 2 -> beat[w] = 0; sent[w] = 0 }
  :: atomic { RUNS(w) && beat[w] == 2 -> beat[w] = 0;
       if :: LATE -> last[w] = now :: else -> last[w] = sent[w] fi; sent[w] = 0 }
  :: atomic { RUNS(w) && beat[w] == 3 -> die(w) }

  /* The fence. */
  :: atomic { RUNS(w) && sock[w] && !TRUST(w) -> sock[w] = false; mine[w] = 0; stale[w] = false }
  :: atomic { RUNS(w) && stale[w] && TRUST(w) -> stale[w] = false }

  /* Watching, and declaring the death of whose counter stands still. */
  :: atomic { RUNS(w) && (seenI[w] != inc[1-w] || seenV[w] != hb[inc[1-w]]) ->
       seenI[w] = inc[1-w]; seenV[w] = hb[inc[1-w]]; seenAt[w] = now }
  :: atomic { DECLARE && RUNS(w) && !dead[seenI[w]] && hb[seenI[w]] == seenV[w] && now - seenAt[w] >= T ->
       dead[seenI[w]] = true }

  /* A claim: from a dead one, from nobody, or from itself what it does not run. */
  :: atomic { RUNS(w) && TRUST(w) && want[w] == 0 && mine[w] == 0 && ep < EPMAX &&
       (owner == NOBODY || owner == inc[w] || dead[owner] ||
        (!DECLARE && owner == seenI[w] && hb[owner] == seenV[w] && now - seenAt[w] >= T)) ->
       want[w] = ep; from[w] = owner; as[w] = inc[w]; waits[w] = true }
  :: atomic { want[w] != 0 ->                                  /* it arrives */
       if
       :: !dead[as[w]] && owner == from[w] && ep == want[w] ->
            owner = as[w]; ep++;
            if :: waits[w] && RUNS(w) && as[w] == inc[w] -> mine[w] = ep :: else fi  /* else the answer is lost */
       :: else
       fi;
       want[w] = 0; from[w] = 0; as[w] = 0; waits[w] = false }
  :: atomic { RUNS(w) && waits[w] -> waits[w] = false }        /* it is given up, and may still arrive */

  /* The session: connecting, and writing. */
  :: atomic { RUNS(w) && mine[w] != 0 && !sock[w] && (TRUST(w) || !ASK) && !stale[w] -> connect(w) }
  :: atomic { RUNS(w) && mine[w] != 0 && wrEp[w] == 0 -> wrEp[w] = mine[w]; wrAs[w] = inc[w] }
  :: atomic { wrEp[w] != 0 ->
       if
       :: !FENCE || (owner == wrAs[w] && ep == wrEp[w]) -> assert(owner == wrAs[w] && ep == wrEp[w])
       :: else
       fi;
       wrEp[w] = 0; wrAs[w] = 0 }

  /* Release: to nobody, or over to the other, who must be alive. The connection is
     closed before, and that nothing runs is known. */
  :: atomic { RUNS(w) && mine[w] != 0 && ep < EPMAX && (TRUST(w) || sock[w]) ->
       if :: CLOSE -> sock[w] = false :: else fi;
       if
       :: owner == inc[w] && ep == mine[w] -> ep++; owner = NOBODY
       :: owner == inc[w] && ep == mine[w] && !dead[inc[1-w]] -> ep++; owner = inc[1-w]
       :: !(owner == inc[w] && ep == mine[w])
       fi;
       if :: CLOSE -> mine[w] = 0 :: else fi }

  /* The target reads that it is the owner, while no claim of its own is under way,
     and starts under that epoch. */
  :: atomic { RUNS(w) && mine[w] == 0 && want[w] == 0 && !sock[w] && owner == inc[w] && (TRUST(w) || !ASK) -> mine[w] = ep }

  /* Freezing, at any time for any time. */
  :: atomic { PAUSE && RUNS(w) && now < MAXT - 1 -> paused[w] = true }
  :: atomic { paused[w] -> paused[w] = false; stale[w] = sock[w] }

  :: now >= MAXT -> break
  od
}

init {
  atomic {
    inc[0] = 0; inc[1] = 1; hb[0] = 1; hb[1] = 1;
    seenI[0] = 1; seenV[0] = 1; seenI[1] = 0; seenV[1] = 1;
    mine[0] = 1; sock[0] = true;
    run worker(0); run worker(1)
  }
}
