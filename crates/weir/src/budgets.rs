//! `weir budgets`: how the budgets of a running node stand, from the admin API.

use crate::admin::{Budget, Budgets, Holder};
use crate::client::{Client, Complaint, NodeArgs, encoded};
use crate::exit::Exit;
use crate::table::Table;
use crate::terminal::{Paint, complain, say};

/// Show how the budgets of a running node stand
///
/// For each that has one: what is spent in this period, what calls under way may cost at worst, what is left, and when
/// it renews. Of a budget that nodes share, as the node sees it that is asked.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir budgets
  weir budgets --of research-agent
  weir budgets --json | jq '.budgets[] | select(.refused > 0) | .name'

Exit codes: 0 all is well, 1 no node answered, 2 the command line is wrong
or nobody has the name")]
pub struct Args {
    #[command(flatten)]
    node: NodeArgs,
    /// Only of this consumer, team, key, api or task
    #[arg(long, value_name = "NAME")]
    of: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Exit {
    let budgets = match look(args) {
        Ok(budgets) => budgets,
        Err(complaint) => {
            let unknown = complaint.status == Some(404);
            match unknown {
                true => complain(&complaint.message, "`weir budgets` shows in its column `of` who has spent"),
                false => complaint.tell(),
            }
            return if unknown { Exit::Wrong } else { Exit::Failed };
        }
    };
    say(&match (args.json, untouched(&budgets, args.of.as_deref())) {
        (true, _) => format!("{}\n", serde_json::to_string_pretty(&budgets).unwrap_or_default()),
        (false, Some(sentence)) => sentence + "\n",
        (false, None) => table(&budgets).text(Paint::stdout()),
    });
    Exit::Ok
}

fn look(args: &Args) -> Result<Budgets, Complaint> {
    let query = args.of.as_deref().map(|of| format!("?of={}", encoded(of)));
    Client::new(&args.node)?.get(&format!("/v1/budgets{}", query.unwrap_or_default()))
}

/// What is to be said where the table would have no row.
fn untouched(Budgets { budgets }: &Budgets, of: Option<&str>) -> Option<String> {
    if budgets.iter().any(|budget| !budget.holders.is_empty()) {
        return None;
    }
    if budgets.is_empty() {
        return Some("the document of this node has no budgets".into());
    }
    let each = |it: &Budget| format!("`{}` of {} {} per {}", it.name, it.limit, it.unit, it.per.as_str());
    let all = budgets.iter().map(each).collect::<Vec<_>>().join(", ");
    Some(match of {
        Some(of) => format!("nothing is spent by `{of}` of any budget that runs; there are {all}"),
        None => format!("nobody has spent of any budget that runs; there are {all}"),
    })
}

const COLUMNS: [&str; 11] =
    ["budget", "per", "of", "mode", "renews", "unit", "limit", "spent", "reserved", "left", "refused"];
/// So many of them are words.
const WORDS: usize = 6;

fn table(Budgets { budgets }: &Budgets) -> Table {
    let mut table = Table::new(COLUMNS.map(str::to_owned), WORDS);
    for budget in budgets {
        let Budget { name, per, unit, limit, enforce, shared, refused, .. } = budget;
        let mode = match shared {
            Some(store) => format!("{}, shared by {store}", enforce.as_str()),
            None => enforce.as_str().to_owned(),
        };
        for Holder { of, spent, reserved, left, renews, .. } in &budget.holders {
            let renews = renews.as_deref().unwrap_or("never");
            let refused = refused.to_string();
            let cells = [name, per.as_str(), of, &mode, renews, unit, limit, spent, reserved, left, &refused]
                .map(str::to_owned);
            table.row(cells);
        }
    }
    table
}
