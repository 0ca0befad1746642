//! Waiting until something holds for each player, for at most so long. It looks again and again: the clients are other
//! people's programs, which tell of nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::{NOW, Play, WITHIN};
use crate::interop::federation::Seen;
use crate::interop::player::Player;
use crate::interop::tally::Counts;

/// How often it is looked whether something holds.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Play<'_> {
    /// What became of each player's calls until now.
    pub(super) fn mark(&self) -> Vec<Counts> {
        self.players.iter().map(|player| player.tally.total()).collect()
    }

    /// Waits until `look` has said of every player that it holds, or until the time is over; how long each took.
    pub(super) async fn until_looked(
        &mut self,
        within: Duration,
        mut look: impl AsyncFnMut(&mut Self) -> anyhow::Result<Vec<bool>>,
    ) -> anyhow::Result<Vec<Option<Duration>>> {
        let began = Instant::now();
        let mut took = vec![None; self.players.len()];
        loop {
            for (took, holds) in took.iter_mut().zip(look(self).await?) {
                if took.is_none() && holds {
                    *took = Some(began.elapsed());
                }
            }
            if took.iter().all(Option::is_some) || began.elapsed() > within {
                return Ok(took);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The same of the players, which must all be alive.
    pub(super) async fn until(
        &mut self,
        within: Duration,
        holds: impl Fn(&Player) -> bool,
    ) -> anyhow::Result<Vec<Option<Duration>>> {
        self.until_looked(within, async |play| {
            for player in &mut play.players {
                player.alive()?;
            }
            Ok(play.players.iter().map(&holds).collect())
        })
        .await
    }

    /// The same of what a client's calls do now; xDS servers make none.
    pub(super) async fn until_clients(
        &mut self,
        holds: impl Fn(&Counts) -> bool,
    ) -> anyhow::Result<Vec<Option<Duration>>> {
        self.until(WITHIN, |player| {
            let now = player.tally.recent(NOW);
            player.subject.is_server() || (now.answers() > 0 && holds(&now))
        })
        .await
    }

    /// Whether what ended since a mark came to hold for each.
    pub(super) async fn until_since(
        &mut self,
        before: &[Counts],
        within: Duration,
        holds: impl Fn(&Counts) -> bool,
    ) -> anyhow::Result<Vec<bool>> {
        let holds = |(player, before): (&Player, &Counts)| {
            player.subject.is_server() || holds(&player.tally.total().since(before))
        };
        let look = async |play: &mut Self| Ok(play.players.iter().zip(before).map(holds).collect());
        Ok(self.until_looked(within, look).await?.iter().map(Option::is_some).collect())
    }

    /// Waits until `portolan clients` shows each player's stream as wanted.
    pub(super) async fn until_seen(
        &mut self,
        within: Duration,
        holds: impl Fn(&Seen) -> bool,
    ) -> anyhow::Result<Vec<Option<Duration>>> {
        self.until_looked(within, async |play| {
            let seen = play.federation.clients().await?;
            let of = |player: &Player| seen.iter().filter(|seen| seen.node == player.subject.slug()).any(&holds);
            Ok(play.players.iter().map(of).collect())
        })
        .await
    }
}
