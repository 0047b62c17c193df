//! How the members of a `--cluster` list become one cluster.
//!
//! Each fresh node draws an incarnation, makes it durable and says hello. Then, each node for itself:
//! ```text
//! gather    until the incarnation of every listed member is known, and that it was given the same list
//! record    the roster (names, addresses, incarnations) durably; it is never changed again
//! confirm   until every member has said that it holds this very roster durably
//! complete  node ids by order of name, cluster id = hash of the roster; the log begins with its configuration
//! ```
//! Why this is safe: a cluster is complete only when every folder of its roster has recorded that roster, and a folder
//! records one roster in its life. So two different rosters with a folder in common are never both complete, and a
//! folder that was deleted and made anew is a stranger to every roster that its predecessor was part of.
//!
//! A node that is complete tells so to any founder that is not, which then completes as well: its own record is one of
//! those that completed the roster. Everything said here is said again until it is known to have been heard.

use crate::roster::{Founder, Roster};
use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{DecodeError, Incarnation, Reader, Writer};
use std::collections::{BTreeMap, BTreeSet};

/// What nodes tell each other about formation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FormationMessage {
    /// The members as the sender was told them, in order of name; empty once it is formed.
    pub(crate) list: Vec<(String, String)>,
    /// The roster that the sender holds durably.
    pub(crate) roster: Option<Roster>,
    /// Whether the sender knows that every founder holds that roster durably.
    pub(crate) complete: bool,
}

impl FormationMessage {
    /// The payload of a formation frame.
    pub(crate) fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        buffer.write_count(self.list.len());
        for (name, address) in &self.list {
            buffer.write_blob(name.as_bytes());
            buffer.write_blob(address.as_bytes());
        }
        buffer.write_bool(self.complete);
        buffer.write_bool(self.roster.is_some());
        if let Some(roster) = &self.roster {
            buffer.put_slice(&roster.encode());
        }
        buffer.freeze()
    }

    /// Reads what [`FormationMessage::encode`] wrote.
    pub(crate) fn decode(bytes: Bytes) -> Result<FormationMessage, DecodeError> {
        let mut reader = Reader::new("formation message", bytes);
        let mut list = Vec::new();
        for _ in 0..reader.count(8)? {
            let name = reader.text()?;
            list.push((name, reader.text()?));
        }
        let complete = reader.bool()?;
        let roster = if reader.bool()? { Some(Roster::decode(&mut reader)?) } else { None };
        reader.finish()?;
        if complete && roster.is_none() {
            return Err(DecodeError::Invalid("a formation is complete without a roster"));
        }
        Ok(FormationMessage { list, roster, complete })
    }
}

/// What formation needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Word from others.
    Wait,
    /// This roster is to be recorded durably.
    Record(Roster),
    /// The cluster is formed by this roster.
    Complete(Roster),
}

/// Formation as one node sees it.
#[derive(Clone, Debug)]
pub(crate) struct Formation {
    /// This node's name.
    name: String,
    /// The members as this node was told them, in order of name.
    list: Vec<(String, String)>,
    /// Incarnations heard of, this node's own among them.
    known: BTreeMap<String, Incarnation>,
    /// Who is known to have been given the same list: by its own word, or by that of one who recorded it.
    agreed: BTreeSet<String>,
    /// The roster that this node holds, durably or on its way to disk.
    roster: Option<Roster>,
    /// Whether that roster is durable here.
    durable: bool,
    /// Who has said that it holds the same roster durably.
    confirmed: BTreeSet<String>,
    /// Whether somebody said that the roster is complete.
    complete_elsewhere: bool,
    /// What keeps a member from taking part, by name.
    disputes: BTreeMap<String, String>,
}

impl Formation {
    /// Formation begun, or taken up again with the roster that was recorded before a restart.
    pub(crate) fn new(
        name: String,
        incarnation: Incarnation,
        mut list: Vec<(String, String)>,
        roster: Option<Roster>,
    ) -> Formation {
        if let Some(roster) = &roster {
            let founders = roster.founders().iter();
            list =
                founders.map(|founder| (founder.name.clone(), founder.address.clone())).collect();
        }
        list.sort();
        Formation {
            known: BTreeMap::from([(name.clone(), incarnation)]),
            agreed: BTreeSet::from([name.clone()]),
            name,
            list,
            durable: roster.is_some(),
            roster,
            confirmed: BTreeSet::new(),
            complete_elsewhere: false,
            disputes: BTreeMap::new(),
        }
    }

    /// The members to form a cluster of.
    pub(crate) fn list(&self) -> &[(String, String)] {
        &self.list
    }

    /// Takes in that the member of this name speaks under this incarnation; the verdict on its hello was good.
    pub(crate) fn on_hello(&mut self, name: &str, incarnation: Incarnation) {
        if self.known.insert(name.to_owned(), incarnation) != Some(incarnation) {
            self.agreed.remove(name);
            self.confirmed.remove(name);
            self.disputes.remove(name);
        }
    }

    /// Takes in what a member says. The error is a text for people: what is said contradicts what is known here.
    pub(crate) fn on_message(
        &mut self,
        from: &str,
        message: &FormationMessage,
    ) -> Result<(), String> {
        let verdict = self.judge(from, message);
        match &verdict {
            Ok(()) => self.disputes.remove(from),
            Err(text) => self.disputes.insert(from.to_owned(), text.clone()),
        };
        verdict?;
        self.agreed.insert(from.to_owned());
        let Some(theirs) = &message.roster else { return Ok(()) };
        if self.roster.as_ref() == Some(theirs) {
            self.confirmed.insert(from.to_owned());
            self.complete_elsewhere |= message.complete;
        } else {
            // Nothing is recorded here yet, and nothing heard contradicts: what another has recorded will do.
            for founder in theirs.founders() {
                self.known.insert(founder.name.clone(), founder.incarnation);
                self.agreed.insert(founder.name.clone());
            }
        }
        Ok(())
    }

    fn judge(&self, from: &str, message: &FormationMessage) -> Result<(), String> {
        let own = &self.name;
        if !message.complete && message.list != self.list {
            return Err(format!(
                "{own} and {from} were given different --cluster lists: {own} has {}; {from} has {}. Give all nodes \
                 the same list",
                shown(&self.list),
                shown(&message.list)
            ));
        }
        let Some(theirs) = &message.roster else { return Ok(()) };
        if let Some(ours) = &self.roster {
            return if ours == theirs {
                Ok(())
            } else {
                Err(format!(
                    "{own} and {from} have recorded different members: {own} has {ours}; {from} has {theirs}. If this \
                     cluster has never served, delete the data folders of all its members and start them again; \
                     otherwise put the former data folders back"
                ))
            };
        }
        if message.complete {
            return Err(format!(
                "{from} has formed a cluster of {theirs}; the data folder of {own} does not remember it. It is not the \
                 former one, or an older image of it: put the former one back"
            ));
        }
        let contradiction = theirs.founders().iter().find(|founder| {
            self.known.get(&founder.name).is_some_and(|known| *known != founder.incarnation)
        });
        match contradiction {
            None if theirs.founders().len() == self.list.len() => Ok(()),
            None => Err(format!("{from} has recorded other members than the --cluster list names")),
            Some(founder) => Err(format!(
                "{from} has recorded another data folder of {} (incarnation {}): put that data folder back; or, if \
                 this cluster has never served, delete the data folders of all its members and start them again",
                founder.name, founder.incarnation
            )),
        }
    }

    /// What is needed next.
    pub(crate) fn step(&mut self) -> Step {
        if let Some(roster) = &self.roster {
            let others = roster.founders().iter().filter(|founder| founder.name != self.name);
            let all = others.clone().all(|founder| self.confirmed.contains(&founder.name));
            return if self.durable && (all || self.complete_elsewhere) {
                Step::Complete(roster.clone())
            } else {
                Step::Wait
            };
        }
        let founder = |(name, address): &(String, String)| {
            let incarnation = *self.known.get(name).filter(|_| self.agreed.contains(name))?;
            Some(Founder { name: name.clone(), address: address.clone(), incarnation })
        };
        match self.list.iter().map(founder).collect::<Option<Vec<_>>>() {
            Some(founders) if self.disputes.is_empty() => {
                let roster = Roster::new(founders);
                self.roster = Some(roster.clone());
                Step::Record(roster)
            }
            Some(_) | None => Step::Wait,
        }
    }

    /// Takes in that the roster is durable here.
    pub(crate) fn on_recorded(&mut self) {
        self.durable = true;
    }

    /// What this node has to tell.
    pub(crate) fn message(&self) -> FormationMessage {
        let roster = self.roster.clone().filter(|_| self.durable);
        FormationMessage { list: self.list.clone(), roster, complete: false }
    }

    /// The members not yet heard from, or not yet known to hold the roster, by name.
    pub(crate) fn missing(&self) -> Vec<String> {
        let missing = |name: &&String| {
            **name != self.name
                && if self.roster.is_some() {
                    !self.confirmed.contains(*name)
                } else {
                    !self.agreed.contains(*name) || self.disputes.contains_key(*name)
                }
        };
        self.list.iter().map(|(name, _)| name).filter(missing).cloned().collect()
    }
}

fn shown(list: &[(String, String)]) -> String {
    list.iter().map(|(name, address)| format!("{name}={address}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Vec<(String, String)> {
        ["n1", "n2"].map(|name| (name.to_owned(), format!("{name}:1"))).to_vec()
    }

    fn formation() -> Formation {
        Formation::new("n1".into(), Incarnation(1), list(), None)
    }

    fn says(roster: Option<Roster>) -> FormationMessage {
        FormationMessage { list: list(), roster, complete: false }
    }

    #[test]
    fn a_member_in_another_folder_has_to_agree_anew_and_one_in_the_same_has_not() {
        for (incarnation, agrees) in [(2, true), (3, false)] {
            let mut formation = formation();
            formation.on_hello("n2", Incarnation(2));
            assert_eq!(formation.on_message("n2", &says(None)), Ok(()));
            formation.on_hello("n2", Incarnation(incarnation));
            assert_eq!(formation.missing().is_empty(), agrees);
            assert_eq!(matches!(formation.step(), Step::Record(_)), agrees);
        }
    }

    #[test]
    fn a_roster_of_more_than_the_list_is_disputed() {
        let founder = |name: &str| Founder {
            name: name.into(),
            address: format!("{name}:1"),
            incarnation: Incarnation(1),
        };
        for (names, is_good) in [(&["n1", "n2"][..], true), (&["n1", "n2", "n3"], false)] {
            let mut formation = formation();
            let roster = Roster::new(names.iter().map(|name| founder(name)).collect());
            assert_eq!(formation.on_message("n2", &says(Some(roster))).is_ok(), is_good);
            assert_eq!(formation.missing().is_empty(), is_good);
        }
    }

    #[test]
    fn who_contradicts_what_it_agreed_to_is_waited_for() {
        let mut formation = formation();
        formation.on_hello("n2", Incarnation(2));
        assert_eq!(formation.on_message("n2", &says(None)), Ok(()));
        let other = FormationMessage { list: list()[..1].to_vec(), ..says(None) };
        assert!(formation.on_message("n2", &other).is_err());
        assert_eq!(formation.step(), Step::Wait);
        assert_eq!(formation.missing(), ["n2"]);
        assert_eq!(formation.on_message("n2", &says(None)), Ok(()));
        assert!(matches!(formation.step(), Step::Record(_)));
    }
}
