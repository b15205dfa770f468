package units

// Counted is what was counted last, by `bin/bench -only units`.
var Counted = Counts{}
