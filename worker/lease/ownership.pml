/* The ownership of one session among N workers, as package lease does it:
   heartbeats with trust that runs from the send, declared deaths, claims and
   replies that may come late or never, renewal, planned hand-over, release,
   freezes, and a worker that joins again after its death. Neither time nor
   heartbeats nor epochs are bounded: what is kept of them is only how long ago
   something was, and whether it still is as it was.

   modelcheck.sh checks it and all of its broken variants. By hand (apt-get
   install spin gcc):

     spin -a ownership.pml
     cc -O2 -DSAFETY -DNOREDUCE -DCOLLAPSE -DBFS -o pan pan.c && ./pan

   "errors: 0" is a pass: 16 million states, half a minute, 1.8 GB. With -DPAUSE=0
   nobody freezes (3 million states); with -DF=2 -DT=3 the steps of time are finer
   (75 million states, some minutes, 8 GB). Each of these is the protocol with
   one rule broken, and ends with "errors: 1" within seconds; after that,
   spin -t -p with the same -D shows how it comes about:

     spin -a -DF=2       trust lasts as long as a takeover takes
     spin -a -DLATE=1    trust begins at the reply instead of the send
     spin -a -DDECLARE=0 a claim that only looked at the heartbeat
     spin -a -DFENCE=0   a write that is not checked against owner and epoch
     spin -a -DCLOSE=0   a hand-over before the connection is closed
     spin -a -DASK=0     a session is connected without asking for trust
     spin -a -DBURY=0    a new incarnation that does not wait for the old one's end
     spin -a -DCUT=0     trust that ends without the connection being cut */

#ifndef N
#define N 2
#endif
#ifndef F
#define F 1        /* trust, in steps of the clock */
#endif
#ifndef T
#define T 2        /* takeover */
#endif
#ifndef PAUSE
#define PAUSE 1    /* freezes */
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
#ifndef CUT
#define CUT 1
#endif

#define NOBODY N
#define OLD    (N+1)      /* an incarnation of before, which is dead */

/* What is said of an epoch: nothing, that it is the session's now, that it was. */
#define NONE    0
#define CURRENT 1
#define PAST    2

/* The store: the owner, and which of the present incarnations are dead. */
byte owner = 0;
bool dead[N];

typedef Worker {
  byte left;       /* steps of trust that are left */
  byte beat;       /* a heartbeat: 0 none, 1 sent, 2 counted */
  byte worth;      /* the trust that it would bring now */
  byte mine;       /* the epoch under which it runs the session */
  bool claim;      /* a claim is under way that names the session's epoch */
  byte got;        /* the epoch that an answer names which is under way to it */
  bool waits;      /* for the answer to its claim */
  bool sock;       /* it is connected */
  bool paused;
  bool stale;      /* connected since before a freeze, and has not looked at the clock since */
}
Worker w[N];

/* What each has seen of each: how long the counter has stood still, and whether
   it has moved since. */
typedef Watch { byte still[N]; bool moved[N] }
Watch watch[N];

#define TRUST(i)   (w[i].left > 0)
#define AWAKE(i)   (!w[i].paused)
#define OVERDUE(i) (AWAKE(i) && w[i].sock && !TRUST(i) && CUT)

byte a, b;         /* counters of loops, 0 in between */

/* A step of time. It does not pass the moment at which somebody awake fences. */
proctype clock() {
  do
  :: atomic {
       !OVERDUE(0) && !OVERDUE(1) &&
#if N > 2
       !OVERDUE(2) &&
#endif
       true ->
       for (a : 0 .. N-1) {
         if :: w[a].left > 0 -> w[a].left-- :: else fi;
         if :: w[a].worth > 0 -> w[a].worth-- :: else fi;
         for (b : 0 .. N-1) {
           if :: a != b && !dead[b] && watch[a].still[b] < T -> watch[a].still[b]++ :: else fi
         }
       }
       a = 0; b = 0
     }
  od
}

/* The owner changes, and with it the epoch: what named it names the past. */
inline move(to) {
  owner = to;
  for (a : 0 .. N-1) {
    if :: w[a].mine == CURRENT -> w[a].mine = PAST :: else fi;
    w[a].claim = false; w[a].waits = false;   /* it will be refused whenever it arrives */
    if :: w[a].got == CURRENT -> w[a].got = PAST :: else fi
  }
  a = 0
}

/* A counter has moved, or another incarnation has come. */
inline stir(i) {
  for (a : 0 .. N-1) { if :: a != i -> watch[a].moved[i] = true :: else fi }
  a = 0
}

/* One is declared dead. What was seen of it no longer counts. */
inline die(i) {
  dead[i] = true;
  for (a : 0 .. N-1) { watch[a].moved[i] = false; watch[a].still[i] = 0 }
  a = 0
}

/* A worker has learned of its death: it ends all it has and joins anew. */
inline again(i) {
  if :: BURY -> w[i].sock = false :: else fi;
  w[i].mine = NONE; w[i].claim = false; w[i].got = NONE; w[i].waits = false;
  w[i].beat = 0; w[i].worth = 0; w[i].stale = false;
  if :: owner == i -> owner = OLD :: else fi;
  dead[i] = false; w[i].left = F;
  stir(i)
}

inline connect(i) {
  assert(!w[i].sock);        /* its own connection of before is closed */
  assert(owner == i);        /* who is trusted owns what it runs */
  for (a : 0 .. N-1) {
    if
    :: w[a].sock ->          /* nobody is kicked but a frozen holder */
         assert(w[a].paused || w[a].stale);
         w[a].sock = false; w[a].stale = false
    :: else
    fi
  }
  a = 0;
  w[i].sock = true
}

#define GIVES(i) (AWAKE(i) && w[i].mine == CURRENT && owner == i && !w[i].waits && w[i].got == NONE)

/* The connection is closed before the session is given up. */
inline close(i) {
  if :: CLOSE -> w[i].sock = false; w[i].stale = false :: else fi
}

/* What one worker has to do with another. */
proctype eye(byte i; byte o) {
  do
  /* The other's counter is looked at; who stands still for long is declared dead. */
  :: atomic { AWAKE(i) && watch[i].moved[o] -> watch[i].moved[o] = false; watch[i].still[o] = 0 }
  :: atomic { DECLARE && AWAKE(i) && !dead[o] && !watch[i].moved[o] && watch[i].still[o] >= T -> die(o) }
  /* The session is handed over, to one that is alive. */
  :: atomic { GIVES(i) && !dead[o] -> close(i); move(o); w[i].mine = NONE }
  od
}

proctype worker(byte i) {
  do
  /* Heartbeats, which may be lost on their way there or back. */
  :: atomic { AWAKE(i) && w[i].beat == 0 -> w[i].beat = 1; w[i].worth = F }
  :: atomic { w[i].beat == 1 && !dead[i] -> w[i].beat = 2; stir(i) }
  :: atomic { w[i].beat != 0 -> w[i].beat = 0; w[i].worth = 0 }
  :: atomic { AWAKE(i) && w[i].beat == 2 ->
       if
       :: LATE -> w[i].left = F
       :: !LATE && w[i].worth > w[i].left -> w[i].left = w[i].worth
       :: else
       fi;
       w[i].beat = 0; w[i].worth = 0 }
  :: atomic { AWAKE(i) && dead[i] -> again(i) }      /* some call was refused */

  /* The fence; and after a freeze, that there is no need of it. */
  :: atomic { AWAKE(i) && !TRUST(i) && CUT && (w[i].sock || w[i].mine != NONE) ->
       w[i].sock = false; w[i].mine = NONE; w[i].stale = false }
  :: atomic { w[i].stale && AWAKE(i) && TRUST(i) -> w[i].stale = false }

  /* A claim is sent: of what a dead one owns, or nobody, or it itself (to take up
     what it does not run, or to renew). It may arrive late, and its answer never. */
  :: atomic { AWAKE(i) && TRUST(i) && !w[i].claim && w[i].got == NONE && (w[i].mine == NONE || owner == i) &&
       (owner == OLD || owner == NOBODY || owner == i) ->
       w[i].claim = true; w[i].waits = true }
  :: atomic { AWAKE(i) && TRUST(i) && !w[i].claim && w[i].got == NONE && w[i].mine == NONE && owner < N && owner != i &&
       (dead[owner] || (!DECLARE && !watch[i].moved[owner] && watch[i].still[owner] >= T)) ->
       w[i].claim = true; w[i].waits = true }
  :: atomic { w[i].claim && !dead[i] ->
       if :: w[i].waits -> move(i); w[i].got = CURRENT :: else -> move(i) fi }
  :: atomic { w[i].waits -> w[i].waits = false }
  :: atomic { w[i].got != NONE -> w[i].got = NONE }

  /* The target of a hand-over reads who the owner is; a claim of its own that it
     has given up may still be under way. */
  :: atomic { AWAKE(i) && w[i].mine == NONE && !w[i].waits && w[i].got == NONE && owner == i -> w[i].got = CURRENT }

  /* With the answer the session begins, or goes on under the new epoch. */
  :: atomic { AWAKE(i) && w[i].got != NONE && (TRUST(i) || !ASK) -> w[i].mine = w[i].got; w[i].got = NONE }

  /* It connects, and writes. */
  :: atomic { AWAKE(i) && w[i].mine != NONE && !w[i].sock && (TRUST(i) || !ASK) -> connect(i) }
  :: atomic { AWAKE(i) && w[i].mine != NONE && (!FENCE || (owner == i && w[i].mine == CURRENT)) ->
       assert(owner == i && w[i].mine == CURRENT) }

  /* It is released to nobody. */
  :: atomic { GIVES(i) -> close(i); move(NOBODY); w[i].mine = NONE }

  /* Freezing, at any time for any time. */
  :: atomic { PAUSE && AWAKE(i) -> w[i].paused = true }
  :: atomic { w[i].paused -> w[i].paused = false; w[i].stale = w[i].sock }
  od
}

init {
  atomic {
    for (a : 0 .. N-1) { w[a].left = F }
    a = 0;
    w[0].mine = CURRENT; w[0].sock = true;
    run clock(); run worker(0); run worker(1); run eye(0, 1); run eye(1, 0)
#if N > 2
    ; run worker(2); run eye(0, 2); run eye(1, 2); run eye(2, 0); run eye(2, 1)
#endif
  }
}
