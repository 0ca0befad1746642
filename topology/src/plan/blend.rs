//! Bends a target's shares to what places may have now: what a recovering place must wait for stays with those who
//! hold it, and what a draining place still keeps is taken from those who gain.

/// One place's part in the blend. All shares are fractions of the client's load.
#[derive(Debug)]
pub(super) struct Part {
    /// Where it is going.
    pub(super) to: f64,
    /// What it is served now and could go on serving: less if it lost endpoints, nothing if it lost all.
    pub(super) keeps: f64,
    /// The most that it may have now, if it is on its way up.
    pub(super) ceiling: Option<f64>,
    /// The least that it has now, if it is on its way down.
    pub(super) floor: Option<f64>,
    /// Its turn (lower is earlier) and its weight against those of the same turn, when nobody holds what another must
    /// wait for; `None`: it has no room.
    pub(super) steps_in: Option<(usize, f64)>,
    /// Whether places that hold nothing yet step in for what this one must wait for.
    pub(super) others: bool,
}

/// The shares now. They sum to what the targets sum to: a ceiling gives way where nobody else can take its excess.
pub(super) fn blend(parts: &[Part]) -> Vec<f64> {
    let mut shares: Vec<f64> =
        parts.iter().map(|part| part.ceiling.map_or(part.to, |most| part.to.min(most))).collect();
    let waits = |part: &Part, share: f64| (part.to - share).max(0.0);
    let waiting: Vec<f64> = parts.iter().zip(&shares).map(|(part, share)| waits(part, *share)).collect();
    let all: f64 = waiting.iter().sum();
    let for_others: f64 = parts.iter().zip(&waiting).filter(|(part, _)| part.others).map(|(_, waits)| waits).sum();
    if all > 0.0 {
        let room = |(part, share): (&Part, &f64)| (part.keeps.min(part.ceiling.unwrap_or(1.0)) - share).max(0.0);
        let room: Vec<f64> = parts.iter().zip(&shares).map(room).collect();
        let held = pour(&mut shares, &room, all);
        let left = (all - held) / all;
        let stepped_in = step_in(parts, &mut shares, for_others * left);
        // What nobody took goes back to where it was going.
        let back = parts.iter().zip(&waiting).map(|(part, waits)| if part.others && stepped_in { 0.0 } else { *waits });
        shares.iter_mut().zip(back).for_each(|(share, waits)| *share += waits * left);
    }
    raise_to_floors(parts, &mut shares);
    shares
}

/// Shares `load` out by `room`, at most filling it; what found room.
fn pour(shares: &mut [f64], room: &[f64], load: f64) -> f64 {
    let all: f64 = room.iter().sum();
    let poured = load.min(all);
    if all > 0.0 {
        shares.iter_mut().zip(room).for_each(|(share, room)| *share += room * poured / all);
    }
    poured
}

/// Gives `load` to those whose turn is first, by weight; whether there is anybody.
fn step_in(parts: &[Part], shares: &mut [f64], load: f64) -> bool {
    let turn = |part: &Part| part.steps_in.filter(|_| part.ceiling.is_none());
    let Some(first) = parts.iter().filter_map(turn).map(|(turn, _)| turn).min() else { return false };
    let weight = |part: &Part| turn(part).filter(|(turn, _)| *turn == first).map_or(0.0, |(_, weight)| weight);
    let all: f64 = parts.iter().map(weight).sum();
    shares.iter_mut().zip(parts).for_each(|(share, part)| *share += load * weight(part) / all);
    true
}

/// What draining places keep is taken from those who gain, by what they gain, and then from all others alike.
fn raise_to_floors(parts: &[Part], shares: &mut [f64]) {
    let mut needed = 0.0;
    for (part, share) in parts.iter().zip(shares.iter_mut()) {
        if let Some(least) = part.floor.filter(|least| *least > *share) {
            needed += least - *share;
            *share = least;
        }
    }
    if needed <= 0.0 {
        return;
    }
    let gains = |part: &Part, share: f64| if part.floor.is_none() { (share - part.keeps).max(0.0) } else { 0.0 };
    let gains: Vec<f64> = parts.iter().zip(&*shares).map(|(part, share)| gains(part, *share)).collect();
    needed -= take(shares, &gains, needed);
    let has: Vec<f64> =
        parts.iter().zip(&*shares).map(|(part, has)| if part.floor.is_none() { *has } else { 0.0 }).collect();
    needed -= take(shares, &has, needed);
    // Only draining places are left: they give back what is too much.
    let all = shares.to_vec();
    take(shares, &all, needed);
}

/// Takes `load` by what each has of `from`, at most all of it; what was taken.
fn take(shares: &mut [f64], from: &[f64], load: f64) -> f64 {
    let all: f64 = from.iter().sum();
    let taken = load.min(all).max(0.0);
    if all > 0.0 {
        shares.iter_mut().zip(from).for_each(|(share, from)| *share = (*share - from * taken / all).max(0.0));
    }
    taken
}
