//! Who sends where, right now: rows of the live table, and one line for those without a terminal.

use std::collections::BTreeMap;
use std::time::Duration;

use portolan_topology::names::RegionName;

use super::site::Site;
use crate::load::Live;

/// What one region's clients did since the last look.
#[derive(Debug, Clone, PartialEq, Default)]
struct Row {
    answered: BTreeMap<RegionName, usize>,
    failed: usize,
}

fn rows(live: &Live, site: &Site) -> BTreeMap<RegionName, Row> {
    let mut rows: BTreeMap<RegionName, Row> = BTreeMap::new();
    for client in &site.clients {
        rows.entry(client.locality.region.clone()).or_default();
    }
    for ((client, backend), count) in &live.answered {
        let from = &site.clients[usize::from(client.0)].locality.region;
        let to = &site.backends[usize::from(backend.0)].locality.region;
        *rows.entry(from.clone()).or_default().answered.entry(to.clone()).or_default() += count;
    }
    for (client, count) in &live.failed {
        let from = &site.clients[usize::from(client.0)].locality.region;
        rows.entry(from.clone()).or_default().failed += count;
    }
    rows
}

/// The table: a row for each region with clients, a column for each that answers.
pub(super) fn table(live: &Live, over: Duration, site: &Site) -> Vec<String> {
    let rows = rows(live, site);
    let mut columns: Vec<RegionName> = site.backends.iter().map(|backend| backend.locality.region.clone()).collect();
    columns.sort();
    columns.dedup();
    let mut header = format!("{:<16}{:>9}{:>9}", "CLIENTS IN", "CALLS/S", "FAILED");
    for column in &columns {
        header.push_str(&format!("{:>14}", format!("→ {column}")));
    }
    let mut table = vec![header];
    for (from, row) in rows {
        let answered: usize = row.answered.values().sum();
        let rate = (answered + row.failed) as f64 / over.as_secs_f64().max(0.001);
        let mut line = format!("{from:<16}{rate:>9.0}{:>9}", row.failed);
        for column in &columns {
            let share = row.answered.get(column).map(|count| *count as f64 * 100.0 / answered as f64);
            line.push_str(&share.map_or_else(|| format!("{:>14}", "–"), |share| format!("{share:>13.0}%")));
        }
        table.push(line);
    }
    table
}

/// The same as one line: `us-east → us-west 70%, eu-west 30%`.
pub(super) fn line(live: &Live, site: &Site) -> String {
    let rows = rows(live, site).into_iter().map(|(from, row)| {
        let answered: usize = row.answered.values().sum();
        let fractions = row.answered.into_iter().map(|(to, count)| (to, count as f64 / answered as f64)).collect();
        let failed = if row.failed > 0 { format!(", {} failed", row.failed) } else { String::new() };
        format!("{from} → {}{failed}", crate::verdict::percents(&fractions))
    });
    rows.collect::<Vec<_>>().join(" · ")
}
