//! From the name of an origin to a reference that is trusted: asked, compared with what is pinned, pinned.

use tracker_less::record::PublisherId;

use super::near;
use crate::attach::origin::Origin;
use crate::attach::{self, Found};
use crate::config::Config;
use crate::error::{Exit, Failure};
use crate::reference::Reference;
use crate::store::state::State;
use crate::ui::Ui;

/// Where an origin leads.
#[derive(Debug, Default)]
pub struct Led {
    /// What to take from the swarm; none: nothing is known of one.
    pub reference: Option<Reference>,
    /// Mirrors may nominate themselves there.
    pub nominates: bool,
    /// What was tried, and what each said.
    pub tried: Vec<String>,
}

/// What becomes of an offered key.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is the pinned one, or one that is known from elsewhere.
    Trusted,
    /// Nothing is known of it, and nothing is pinned.
    New,
    /// Another one is pinned.
    Changed,
}

fn judge(pinned: Option<&PublisherId>, offered: &PublisherId, is_known: bool) -> Verdict {
    match pinned {
        Some(pinned) if pinned == offered => Verdict::Trusted,
        Some(_) => Verdict::Changed,
        None if is_known => Verdict::Trusted,
        None => Verdict::New,
    }
}

/// Asks an origin for its module in the swarm.
///
/// # Errors
/// 41: a publisher that is new here, and nobody says that it is to be trusted. 42: another one than is pinned.
pub async fn lead(config: &Config, ui: &Ui, origin: &Origin, accept_new: bool) -> Result<Led, Failure> {
    let state = State::open(&config.state_dir)?;
    let pinned = state.origins()?.get(&origin.key()).and_then(|text| Reference::parse(text).ok());
    let Found { reference, nominate: nominates, tried } = attach::ask_by(origin, config.name_server).await;
    let Some(reference) = reference else {
        // The origin is silent or gone; the swarm need not be.
        let reference = pinned.and_then(|pinned| attach::from_pin(&pinned, origin));
        return Ok(Led { reference, nominates, tried });
    };
    let offered = &reference.module.publisher;
    let verdict = judge(
        pinned.as_ref().map(|pinned| &pinned.module.publisher),
        offered,
        state.knows_publisher(&offered.to_string())?,
    );
    match verdict {
        Verdict::Trusted => {}
        Verdict::Changed => {
            let was = pinned.map_or_else(String::new, |pinned| pinned.module.publisher.to_string());
            let text = format!("{origin} names another publisher than the pinned one: {offered}, not {was}");
            return Err(Failure::new(Exit::KeyChanged, text).hint(format!(
                "somebody may be in between; if the change is announced elsewhere: murmir trust {origin} {}",
                reference.module
            )));
        }
        Verdict::New => {
            near::check(&config.state_dir, &reference.to_string())?;
            accept(ui, origin, offered, accept_new)?;
        }
    }
    state.set_origin(&origin.key(), Some(&attach::to_pin(&reference, origin).to_string()))?;
    Ok(Led { reference: Some(reference), nominates, tried })
}

fn accept(ui: &Ui, origin: &Origin, offered: &PublisherId, accept_new: bool) -> Result<(), Failure> {
    let question = format!(
        "{origin} says that it is published by\n{offered}\nand can be had from the swarm. Nothing is known of this key here.\n\
         Trust it for {origin} from now on"
    );
    if accept_new || ui.ask(&question) == Some(true) {
        return Ok(());
    }
    let text = format!("{origin} names a publisher that is not known here: {offered}");
    Err(Failure::new(Exit::Unknown, text).hint("--accept-new trusts it from now on; --classic-only asks rsync alone"))
}

/// Shows, makes or ends what origins are pinned to.
///
/// # Errors
/// A name that is no origin, a reference that is none (1); nothing is pinned to that name (1).
pub fn trust(config: &Config, ui: &Ui, name: Option<&str>, to: Option<&str>, remove: bool) -> Result<(), Failure> {
    let state = State::open(&config.state_dir)?;
    let key = |name: &str| match Origin::parse(name, None) {
        Some(Ok(origin)) => Ok(origin.key()),
        Some(Err(why)) => Err(Failure::usage(why)),
        None => Err(Failure::usage(format!("{name}: no rsync:// or https:// name"))),
    };
    match (name, to, remove) {
        (None, _, true) => Err(Failure::usage("trust --remove: which?")),
        (Some(name), _, true) => {
            let key = key(name)?;
            if !state.origins()?.contains_key(&key) {
                return Err(Failure::usage(format!("nothing is pinned to {key}")));
            }
            Ok(state.set_origin(&key, None)?)
        }
        (Some(name), Some(reference), false) => {
            let reference = Reference::parse(reference).map_err(Failure::usage)?;
            Ok(state.set_origin(&key(name)?, Some(&reference.to_string()))?)
        }
        (name, None, false) => {
            let wanted = name.map(key).transpose()?;
            for (origin, reference) in state.origins()? {
                if wanted.as_ref().is_none_or(|wanted| *wanted == origin) {
                    let row = serde_json::json!({ "origin": origin, "reference": reference });
                    ui.answer(&row, &format!("{origin}  {reference}"))?;
                }
            }
            Ok(())
        }
        (None, Some(_), false) => Err(Failure::usage("trust: which origin?")),
    }
}

#[cfg(test)]
mod tests {
    use tracker_less::record::SecretKey;

    use super::*;

    #[test]
    fn a_pin_is_stronger_than_anything_said() {
        let [one, other] = [1, 2].map(|seed| SecretKey::from_seed([seed; 32]).public().publisher());
        assert_eq!(judge(None, &one, false), Verdict::New);
        assert_eq!(judge(None, &one, true), Verdict::Trusted);
        assert_eq!(judge(Some(&one), &one, false), Verdict::Trusted);
        assert_eq!(judge(Some(&one), &other, true), Verdict::Changed);
    }
}
