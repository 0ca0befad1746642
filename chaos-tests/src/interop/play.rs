//! What happens to the clients, and what must hold: the same steps for all at once, each client judged by itself.

mod until;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;

use super::federation::Federation;
use super::outcome::{CALLS_AT_LEAST, Outcome};
use super::player::{Player, TIMEOUT};
use super::relay::{Relay, Spoiled};
use super::routes;
use super::security::Security;
use super::status_tool;
use super::subject::{Kind, TRUST_STORE_PASSWORD};
use super::tally::Counts;
use crate::runner::manifests::Readiness;
use crate::terminal::{Terminal, Tone};

/// How long anything may take that has no time of its own: backoffs on both sides, on a busy machine.
const WITHIN: Duration = Duration::from_secs(30);
/// The time over which it is looked where calls go now.
const NOW: Duration = Duration::from_millis(800);
/// After so many calls none ends any more that began before them: a client has a few open at once.
const STRAGGLERS: u64 = 100;
/// For how long a new pod is held.
const HOLD: Duration = Duration::from_secs(5);
/// Calls behind a share.
const SHARE_CALLS: u64 = 2_000;

/// The backends of the clients' own zone, of the other zone of their cluster, and of the clusters elsewhere.
const OWN_ZONE: &str = "echo-use1-us-east-1a";
const OTHER_ZONE: &str = "echo-use1-us-east-1b";
const HOME: &str = "echo-use1";
const WEST: &str = "echo-usw2";
/// All of them.
const EVERYWHERE: &str = "echo-";

/// Plays everything; what was found of each player. `grpcurl` is that tool's folder, or why it cannot be had.
pub(super) async fn play(
    players: Vec<Player>,
    federation: &mut Federation,
    grpcurl: Result<PathBuf, String>,
    terminal: &Terminal,
) -> anyhow::Result<Vec<Outcome>> {
    let mut play = Play { players, federation, terminal };
    play.begin_before_the_control_plane().await?;
    play.try_every_security().await?;
    play.hold_what_is_new().await?;
    play.fail_over_and_back().await?;
    play.lose_every_endpoint().await?;
    play.weigh_clusters().await?;
    play.show_status(grpcurl.as_ref().map(PathBuf::as_path)).await?;
    play.serve_a_gateway().await?;
    play.follow_routes().await?;
    play.lose_the_control_plane().await?;
    play.refuse_and_recover().await?;
    play.lose_the_region().await?;
    play.end().await
}

struct Play<'a> {
    players: Vec<Player>,
    federation: &'a mut Federation,
    terminal: &'a Terminal,
}

impl Play<'_> {
    /// Every subject starts while its control plane is down, and works once that is there.
    async fn begin_before_the_control_plane(&mut self) -> anyhow::Result<()> {
        self.federation.start().await?;
        if self.players.iter().any(|player| player.subject.recipe.tools.iter().any(|tool| tool.program == "javac")) {
            make_trust_store(&self.federation.paths.certs()).await?;
        }
        self.federation.kill_plane().await?;
        for player in &mut self.players {
            let connection = self.federation.connection(player.subject.slug(), player.subject.best_security())?;
            player.start(self.federation, connection).await?;
            if player.subject.is_server() {
                // Its client is the suite's own, over mutual TLS.
                let node = format!("{}-caller", player.subject.slug());
                let bootstrap = super::bootstrap::grpc(&self.federation.connection(node.clone(), Security::Mtls)?);
                let file = self.federation.paths.bootstrap(&node);
                std::fs::write(&file, serde_json::to_vec_pretty(&bootstrap)?)?;
                player.call_server(&file)?;
            }
        }
        // Long enough for every one of them to have failed to connect.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let early: Vec<u64> = self.players.iter().map(|player| player.tally.total().answers()).collect();
        self.federation.restart_plane().await?;
        let took = self.until(2 * WITHIN, |player| player.tally.recent(NOW).answers() > 20).await?;
        for ((player, took), early) in self.players.iter_mut().zip(took).zip(early) {
            player.learn_version();
            let detail = match took {
                Some(took) if early == 0 => format!("calls are answered {} after that was ready", seconds(took)),
                Some(_) => format!("{early} calls were answered before there was a control plane"),
                None => format!("no calls were answered: {}", player.tally.total().errors()),
            };
            player.found("started before its control plane", took.is_some() && early == 0, detail);
            let said = player.version == player.subject.version;
            player.found("is what was installed", said, format!("it says {}", player.version));
        }
        self.tell();
        Ok(())
    }

    /// Each way of talking to the control plane is tried by a second process; those that work must be those that are known
    /// to. They start after the control plane.
    async fn try_every_security(&mut self) -> anyhow::Result<()> {
        let mut works = vec![Vec::new(); self.players.len()];
        let mut errors = vec![String::new(); self.players.len()];
        for security in Security::ALL {
            let mut probes = Vec::new();
            for player in &self.players {
                let node = format!("{}-{}", player.subject.slug(), security.slug());
                let connection = self.federation.connection(node.clone(), security)?;
                probes.push((node, player.probe(self.federation, connection)?));
            }
            let expected = |place: usize, players: &[Player]| players[place].subject.security.contains(&security);
            // Those that are known to work may take their time; of the others it is enough that they do not meanwhile.
            let kinds: Vec<_> = self.players.iter().map(|player| player.subject.kind).collect();
            let settled =
                |play: &Self, place: usize| !expected(place, &play.players) || probes[place].1.works(kinds[place]);
            self.until_looked(2 * WITHIN, async |play| {
                Ok((0..kinds.len()).map(|place| settled(play, place)).collect())
            })
            .await?;
            let seen = self.federation.clients().await?;
            for (place, (node, probe)) in probes.into_iter().enumerate() {
                let identity = seen.iter().filter(|seen| seen.node == node).find_map(|seen| seen.identity.clone());
                // Mutual only if the control plane saw the client's certificate.
                if probe.works(kinds[place]) && (security != Security::Mtls || identity.is_some()) {
                    works[place].push(security);
                } else if expected(place, &self.players) {
                    errors[place] = format!("; {security}: {}", probe.errors());
                }
                probe.stop().await?;
            }
        }
        for ((player, works), errors) in self.players.iter_mut().zip(works).zip(errors) {
            let names = |list: &[Security]| match list {
                [] => "nothing".to_owned(),
                list => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            };
            let best = player.subject.best_security();
            let after = works.contains(&best);
            let verb = if after { "works" } else { "does not work" };
            player.found("started after its control plane", after, format!("{best} {verb}"));
            let held = works == player.subject.security;
            let detail = format!("works: {}; documented: {}{errors}", names(&works), names(player.subject.security));
            player.found("security is as documented", held, detail);
        }
        self.tell();
        Ok(())
    }

    /// The own zone goes in three ways and comes back: no call fails.
    async fn fail_over_and_back(&mut self) -> anyhow::Result<()> {
        for (check, gone) in [
            ("fails over from unhealthy endpoints and back", Some(Readiness::Unready)),
            ("fails over from draining endpoints and back", Some(Readiness::Terminating)),
            ("fails over from removed endpoints and back", None),
        ] {
            let before = self.mark();
            self.federation.set(OWN_ZONE, gone)?;
            let away = self.until_clients(|now| now.percent_from(OWN_ZONE) == 0.0).await?;
            self.federation.set(OWN_ZONE, Some(Readiness::Ready))?;
            let back = self.until_clients(|now| now.percent_from(OWN_ZONE) >= 95.0).await?;
            for (((player, before), away), back) in self.players.iter_mut().zip(before).zip(away).zip(back) {
                if player.subject.is_server() {
                    continue;
                }
                let since = player.tally.total().since(&before);
                let (passed, detail) = match (away, back) {
                    (Some(away), Some(back)) => {
                        let times = format!("away after {}, back after {}", seconds(away), seconds(back));
                        (since.failures() == 0, format!("{times}, {}", calls_and_failures(&since)))
                    }
                    (None, _) => (false, format!("calls still go there; {}", calls_and_failures(&since))),
                    (_, None) => (false, format!("calls do not come back; {}", calls_and_failures(&since))),
                };
                player.found(check, passed, detail);
            }
            self.tell();
        }
        Ok(())
    }

    /// No endpoint anywhere is ready: calls fail at once, in each client, rather than go to what was ready last.
    async fn lose_every_endpoint(&mut self) -> anyhow::Result<()> {
        self.federation.set(EVERYWHERE, Some(Readiness::Unready))?;
        let stopped = self.until(WITHIN, |player| {
            let now = player.tally.recent(NOW);
            player.subject.is_server() || (now.answers() == 0 && now.failures() > 0)
        });
        let stopped = stopped.await?;
        let errors: Vec<String> = self.players.iter().map(|player| player.tally.recent(NOW).errors()).collect();
        self.federation.set(EVERYWHERE, Some(Readiness::Ready))?;
        let back = self.until_clients(|now| now.failures() == 0 && now.percent_from(OWN_ZONE) >= 95.0).await?;
        for (place, player) in self.players.iter_mut().enumerate().filter(|(_, player)| !player.subject.is_server()) {
            let detail = match (stopped[place], back[place]) {
                (Some(stopped), Some(back)) => {
                    format!(
                        "fails after {} ({}), back after {}",
                        seconds(stopped),
                        first_words(&errors[place]),
                        seconds(back)
                    )
                }
                (None, _) => "calls still go to endpoints that are not ready".to_owned(),
                (_, None) => "calls do not come back".to_owned(),
            };
            player.found("leaves the last endpoints too", stopped[place].is_some() && back[place].is_some(), detail);
        }
        self.tell();
        Ok(())
    }

    /// A policy splits a service 80/20 over two clusters.
    async fn weigh_clusters(&mut self) -> anyhow::Result<()> {
        let failback = "failback: {ramp: 1s, holdDown: 1s}";
        let weights = "clusterWeights: [{cluster: use1, weight: 80}, {cluster: usw2, weight: 20}]";
        self.federation.apply(&format!("{{{failback}, {weights}}}")).await?;
        let west = |counts: &Counts| counts.percent_from(WEST);
        // A second's calls may well be some points off.
        self.until_clients(|now| (west(now) - 20.0).abs() < 8.0).await?;
        // What is left of the shift passes.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = self.mark();
        let enough = self.until_since(&before, WITHIN * 2, |since| since.answers() >= SHARE_CALLS).await?;
        for ((player, before), enough) in self.players.iter_mut().zip(before).zip(enough) {
            if player.subject.is_server() {
                continue;
            }
            let since = player.tally.total().since(&before);
            let share = west(&since);
            let detail = format!("{:.1}/{share:.1} over {} calls", 100.0 - share, since.answers());
            player.found("80/20 locality weights within 3 points", enough && (share - 20.0).abs() <= 3.0, detail);
        }
        self.federation.apply(&format!("{{{failback}}}")).await?;
        self.until_clients(|now| now.percent_from(OWN_ZONE) >= 95.0).await?;
        self.tell();
        Ok(())
    }

    /// A pod is new: no client calls it for its hold, and then its zone counts it by its warm-up. No other pod may have come
    /// since the control plane started, or it would be new, too.
    async fn hold_what_is_new(&mut self) -> anyhow::Result<()> {
        let new = format!("{OWN_ZONE}-1");
        let locality = "{preference: Region, failback: {ramp: 1s, holdDown: 1s}}";
        self.federation.set(&new, None)?;
        let hold = HOLD.as_secs();
        let warmup = format!("{{warmup: {{hold: {hold}s, window: 3600s}}}}");
        self.federation.apply_with(locality, &warmup).await?;
        // One pod here and two in the other zone.
        let third = |now: &Counts| now.percent_from(&new) == 0.0 && (now.percent_from(OWN_ZONE) - 33.3).abs() < 8.0;
        self.until_clients(third).await?;
        self.federation.set(&new, Some(Readiness::Ready))?;
        let called = self.until_clients(|now| now.percent_from(&new) > 0.0).await?;
        let before = self.mark();
        let enough = self.until_since(&before, WITHIN * 2, |since| since.answers() >= SHARE_CALLS).await?;
        for (place, player) in self.players.iter_mut().enumerate().filter(|(_, player)| !player.subject.is_server()) {
            let since = player.tally.total().since(&before[place]);
            // 1.1 pods of 3.1; they would be half of them by their number.
            let zone = since.percent_from(OWN_ZONE);
            let held = called[place].is_some_and(|called| called >= HOLD);
            let passed = held && enough[place] && (zone - 35.5).abs() <= 4.0 && since.failures() == 0;
            let detail = match called[place] {
                Some(called) => format!(
                    "called after {} of at least {hold} s, then {zone:.1}% to its zone; {}",
                    seconds(called),
                    calls_and_failures(&since)
                ),
                None => "it is never called".to_owned(),
            };
            player.found("a new pod is held, and its zone counts it by its warm-up", passed, detail);
        }
        self.federation.apply("{failback: {ramp: 1s, holdDown: 1s}}").await?;
        self.until_clients(|now| now.percent_from(OWN_ZONE) >= 95.0).await?;
        self.tell();
        Ok(())
    }

    /// A public tool shows every client as synced.
    async fn show_status(&mut self, grpcurl: Result<&Path, &String>) -> anyhow::Result<()> {
        let server = self.federation.home()?.xds;
        let certs = self.federation.paths.certs();
        let mut found = Vec::new();
        // What was just sent may not have been acknowledged.
        self.until_looked(WITHIN, async |play| {
            let shown = match grpcurl {
                Ok(tool) => status_tool::fetch(tool, server, &certs).await.map_err(|error| format!("{error:#}")),
                Err(why) => Err(format!("grpcurl cannot be had: {why}")),
            };
            let judge = |player: &Player| match &shown {
                Ok(shown) => status_tool::judge(shown, &player.subject.slug()),
                Err(why) => (false, why.clone()),
            };
            found = play.players.iter().map(judge).collect();
            Ok(found.iter().map(|(well, _)| *well).collect())
        })
        .await?;
        for (player, (well, detail)) in self.players.iter_mut().zip(found) {
            player.found("its status is shown by a public tool", well, detail);
        }
        self.tell();
        Ok(())
    }

    /// A second Envoy is a gateway of the clients' cluster.
    async fn serve_a_gateway(&mut self) -> anyhow::Result<()> {
        let is_delta = |player: &&mut Player| matches!(player.subject.kind, Kind::Envoy { delta: true });
        let Some(player) = self.players.iter_mut().find(is_delta) else { return Ok(()) };
        let (folder, service) = (player.folder().to_owned(), player.subject.service()?);
        player.checks.extend(super::gateway::play(self.federation, &folder, &service).await?);
        self.tell();
        Ok(())
    }

    /// A GRPCRoute for each client's service: every second call has the header that its first rule asks for, and the rest
    /// is split. It comes and goes, and no call fails but what a client does to itself.
    async fn follow_routes(&mut self) -> anyhow::Result<()> {
        let clients = self.players.iter().filter(|player| !player.subject.is_server());
        let services = clients.map(|player| player.subject.service()).collect::<Result<Vec<_>, _>>()?;
        let whole = self.mark();
        routes::publish(self.federation, &services)?;
        let routed = |now: &Counts| now.percent_from(routes::BLUE) > 30.0;
        let came = self.until_clients(routed).await?;
        // The last calls that began before it are among the next few.
        let came_at = self.mark();
        self.until_since(&came_at, WITHIN, |since| since.answers() >= STRAGGLERS).await?;
        let before = self.mark();
        let enough = self.until_since(&before, WITHIN * 2, |since| since.answers() >= SHARE_CALLS).await?;
        let steered: Vec<Counts> =
            self.players.iter().zip(&before).map(|(player, before)| player.tally.total().since(before)).collect();
        routes::remove(self.federation)?;
        let went = self.until_clients(|now| now.percent_from(OWN_ZONE) >= 95.0).await?;
        for (place, player) in self.players.iter_mut().enumerate().filter(|(_, player)| !player.subject.is_server()) {
            let since = &steered[place];
            let [blue, steady, fresh] =
                [routes::BLUE, routes::STEADY, routes::FRESH].map(|prefix| since.percent_from(prefix));
            let detail = format!(
                "{blue:.1}% by the header, {steady:.1}/{fresh:.1} of the others, {}",
                calls_and_failures(since)
            );
            let split = (100.0 * fresh / (steady + fresh).max(1.0) - 20.0).abs() <= 4.0;
            let held = came[place].is_some() && enough[place] && (blue - 50.0).abs() <= 1.0 && split;
            player.found("a GRPCRoute's header and 80/20 within 4 points", held, detail);
            let all = player.tally.total().since(&whole[place]);
            let detail = match (came[place], went[place]) {
                (Some(came), Some(went)) => {
                    format!("there after {}, gone after {}, {}", seconds(came), seconds(went), calls_and_failures(&all))
                }
                (None, _) => format!("calls do not follow it; {}", calls_and_failures(&all)),
                (_, None) => format!("calls follow it still; {}", calls_and_failures(&all)),
            };
            let clean = routes::clean(player.subject.client, &all);
            let passed = came[place].is_some() && went[place].is_some() && clean;
            player.found("a GRPCRoute comes and goes", passed, detail);
        }
        self.tell();
        Ok(())
    }

    /// The control plane dies and comes back: nothing fails meanwhile, and what changes afterwards is followed.
    async fn lose_the_control_plane(&mut self) -> anyhow::Result<()> {
        let before = self.mark();
        self.federation.kill_plane().await?;
        tokio::time::sleep(Duration::from_secs(4)).await;
        for (player, before) in self.players.iter_mut().zip(&before) {
            let since = player.tally.total().since(before);
            let passed = since.failures() == 0 && since.answers() > 0;
            player.found("calls go on without the control plane", passed, calls_and_failures(&since));
        }
        self.federation.restart_plane().await?;
        let synced = self.until_seen(WITHIN, |seen| seen.is_synced()).await?;
        self.federation.set(OWN_ZONE, Some(Readiness::Unready))?;
        let followed = self.until_clients(|now| now.percent_from(OTHER_ZONE) == 100.0).await?;
        self.federation.set(OWN_ZONE, Some(Readiness::Ready))?;
        self.until_clients(|now| now.percent_from(OWN_ZONE) >= 95.0).await?;
        for (((player, before), synced), followed) in self.players.iter_mut().zip(before).zip(synced).zip(followed) {
            let since = player.tally.total().since(&before);
            let followed = followed.is_some() || player.subject.is_server();
            let detail = match (synced, followed) {
                (Some(took), true) => {
                    format!("SYNCED {} after it was ready, {}", seconds(took), calls_and_failures(&since))
                }
                (None, _) => "`portolan clients` does not show it SYNCED".to_owned(),
                (_, false) => "a change of endpoints had no effect".to_owned(),
            };
            let passed = synced.is_some() && followed && since.failures() == 0;
            player.found("follows the control plane that came back", passed, detail);
        }
        self.tell();
        Ok(())
    }

    /// A response is spoiled on its way: it is refused, the last good one stays, and the next one is taken.
    async fn refuse_and_recover(&mut self) -> anyhow::Result<()> {
        let (clients, servers) = (self.relay().await?, self.relay().await?);
        servers.spoil(Spoiled::Listeners);
        for player in &mut self.players {
            let through = if player.subject.is_server() { &servers } else { &clients };
            player.stop().await?;
            let mut connection = self.federation.connection(player.subject.slug(), Security::Plain)?;
            connection.server = through.address;
            player.start(self.federation, connection).await?;
        }
        // What the clients before these were answered a moment ago says nothing: one that starts slowly would be given the
        // spoiled response as its first, with no good one to keep.
        let restarted = self.mark();
        self.until_since(&restarted, WITHIN, |since| since.answers() > 50).await?;
        self.until_clients(|now| now.failures() == 0).await?;
        // Calls that began while a client was starting end by then.
        tokio::time::sleep(TIMEOUT).await;
        let before = self.mark();
        clients.spoil(Spoiled::Assignments);
        self.federation.set(&format!("{OWN_ZONE}-1"), Some(Readiness::Unready))?;
        let refused = self.until_seen(WITHIN, |seen| seen.nack().is_some_and(|reason| !reason.is_empty())).await?;
        let reasons: Vec<Option<String>> = {
            let seen = self.federation.clients().await?;
            let of = |player: &Player| seen.iter().find(|seen| seen.node == player.subject.slug()).cloned();
            self.players.iter().map(|player| of(player)?.nack().map(first_words)).collect()
        };
        clients.spoil(Spoiled::Nothing);
        servers.spoil(Spoiled::Nothing);
        // Its Listener never changes, so that it comes again only with a new stream.
        servers.break_streams();
        self.federation.set(OWN_ZONE, Some(Readiness::Unready))?;
        let recovered = self.until_clients(|now| now.percent_from(OTHER_ZONE) == 100.0).await?;
        let synced = self.until_seen(WITHIN, |seen| seen.is_synced()).await?;
        let serve = self.until(WITHIN, |player| player.tally.recent(NOW).answers() > 20).await?;
        self.federation.set(OWN_ZONE, Some(Readiness::Ready))?;
        self.until_clients(|now| now.percent_from(OWN_ZONE) >= 95.0).await?;
        for (place, player) in self.players.iter_mut().enumerate() {
            let since = player.tally.total().since(&before[place]);
            let server = player.subject.is_server();
            let reason = reasons[place].clone().unwrap_or_else(|| "`portolan clients` shows no refusal".to_owned());
            player.found("refuses a spoiled response", refused[place].is_some() && reasons[place].is_some(), reason);
            let back = if server { serve[place] } else { recovered[place] };
            let passed = back.is_some() && synced[place].is_some() && (server || since.failures() == 0);
            let detail = match (back, synced[place]) {
                (Some(took), Some(_)) => {
                    format!("SYNCED, and calls follow after {}; {}", seconds(took), calls_and_failures(&since))
                }
                (None, _) => format!("calls do not follow the next response; {}", calls_and_failures(&since)),
                (_, None) => "`portolan clients` does not show it SYNCED".to_owned(),
            };
            player.found("takes the next good response", passed, detail);
        }
        self.tell();
        Ok(())
    }

    /// The clients' whole region dies, control plane and backends: calls go to the other regions by the topology's weights.
    async fn lose_the_region(&mut self) -> anyhow::Result<()> {
        for player in self.players.iter_mut().filter(|player| player.subject.is_server()) {
            player.end_calls();
            player.stop().await?;
        }
        self.federation.lose_region().await?;
        let moved = self.until_clients(|now| now.percent_from(HOME) == 0.0 && now.failures() == 0).await?;
        let before = self.mark();
        self.until_since(&before, WITHIN, |since| since.answers() >= CALLS_AT_LEAST).await?;
        for ((player, before), moved) in self.players.iter_mut().zip(before).zip(moved) {
            if player.subject.is_server() {
                continue;
            }
            let since = player.tally.total().since(&before);
            let west = since.percent_from(WEST);
            let detail = match moved {
                Some(took) => format!(
                    "moved after {}, {west:.0}/{:.0} over {}",
                    seconds(took),
                    100.0 - west,
                    calls_and_failures(&since)
                ),
                None => format!("calls still fail; {}", calls_and_failures(&since)),
            };
            player.found("its region lost, 70/30 elsewhere", moved.is_some() && (west - 70.0).abs() <= 6.0, detail);
        }
        self.tell();
        Ok(())
    }

    async fn end(mut self) -> anyhow::Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for mut player in std::mem::take(&mut self.players) {
            player.end_calls();
            player.stop().await?;
            let subject = player.subject;
            let version = if player.version.is_empty() { subject.version.to_owned() } else { player.version };
            let calls = player.tally.total().answers();
            outcomes.push(Outcome {
                client: subject.client,
                title: subject.title(),
                version,
                calls,
                checks: player.checks,
            });
        }
        Ok(outcomes)
    }

    async fn relay(&mut self) -> anyhow::Result<Relay> {
        let host = self.federation.addresses.host();
        let address = self.federation.addresses.port(host, None)?;
        Relay::start(address, self.federation.home()?.xds, &self.federation.paths.certs()).await
    }

    /// One line for each check since the last time.
    fn tell(&mut self) {
        for player in &mut self.players {
            for check in player.checks.iter().skip(player.told) {
                let mark = if check.passed {
                    self.terminal.tone("✓", Tone::Good)
                } else {
                    self.terminal.tone("✗", Tone::Bad)
                };
                self.terminal.say(&format!("{mark} {}: {}: {}", player.subject.title(), check.name, check.detail));
            }
            player.told = player.checks.len();
        }
    }
}

/// grpc-java trusts what the JVM trusts, and nothing of its bootstrap.
async fn make_trust_store(certs: &std::path::Path) -> anyhow::Result<()> {
    let mut keytool = Command::new("keytool");
    keytool.args(["-importcert", "-noprompt", "-alias", "interop", "-storetype", "PKCS12"]);
    keytool.args(["-storepass", TRUST_STORE_PASSWORD]);
    keytool.arg("-file").arg(certs.join("ca.pem")).arg("-keystore").arg(certs.join("trust.p12"));
    let output = keytool.output().await.context("cannot run keytool, which comes with the JDK")?;
    anyhow::ensure!(output.status.success(), "keytool failed: {}", String::from_utf8_lossy(&output.stdout).trim());
    Ok(())
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn calls_and_failures(counts: &Counts) -> String {
    match counts.failures() {
        0 => format!("{} calls, none failed", counts.answers()),
        failed => format!("{} calls, {failed} failed: {}", counts.answers() + failed, counts.errors()),
    }
}

/// The begin of a long reason, on one line.
fn first_words(reason: &str) -> String {
    let line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(140) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line,
    }
}
