//! What a program computes with each of its tensors, as far as LoRA asks.

use std::collections::{BTreeMap, BTreeSet};

use super::Layout;
use crate::torch::program::{Argument, Slot};

/// The uses of slots, by the operators that have them as arguments.
#[derive(Debug, Default)]
pub(super) struct Uses(BTreeMap<Slot, BTreeSet<Use>>);

/// A use of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    /// Such as `aten::linear`.
    operator: String,
    argument: String,
    /// Of a convolution.
    groups: i64,
}

impl Uses {
    /// Notes the arguments of a call.
    pub(super) fn note(&mut self, operator: &str, arguments: &[(String, Argument)]) {
        let groups = arguments.iter().find_map(|(name, argument)| match argument {
            Argument::Integer(groups) if name == "groups" => Some(*groups),
            _ => None,
        });
        for (name, argument) in arguments {
            let slots = match argument {
                Argument::Slot(slot) => std::slice::from_ref(slot),
                Argument::Slots(slots) => slots.as_slice(),
                _ => continue,
            };
            for slot in slots {
                self.0.entry(*slot).or_default().insert(Use {
                    operator: operator.to_owned(),
                    argument: name.clone(),
                    groups: groups.unwrap_or(1),
                });
            }
        }
    }

    /// The layout of the weight in these slots, or what computes with it that LoRA does not adapt, in words.
    pub(super) fn role(&self, slots: &[Slot]) -> Result<Layout, String> {
        let [slot] = slots else { return Err("it has several names, which are tied".to_owned()) };
        let uses = self.0.get(slot).into_iter().flatten();
        let mut layout = None;
        for one in uses {
            let own = match (one.operator.as_str(), one.argument.as_str()) {
                ("aten::linear", "weight") => Layout::Linear,
                ("aten::addmm", "mat2") => Layout::Transposed,
                ("aten::conv2d", "weight") if one.groups == 1 => Layout::Convolution,
                ("aten::conv2d", "weight") => return Err(format!("it is a convolution in {} groups", one.groups)),
                (operator, _) => return Err(format!("its weight is used by `{operator}`")),
            };
            if layout.is_some_and(|layout| layout != own) {
                return Err("its weight is used in two ways".to_owned());
            }
            layout = Some(own);
        }
        layout.ok_or_else(|| "nothing is computed with its weight".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_has_the_layout_of_its_only_kind_of_use() {
        let mut uses = Uses::default();
        let call = |uses: &mut Uses, operator: &str, arguments: &[(&str, Argument)]| {
            let arguments: Vec<_> =
                arguments.iter().map(|(name, argument)| ((*name).to_owned(), argument.clone())).collect();
            uses.note(operator, &arguments);
        };
        call(&mut uses, "aten::linear", &[("input", Argument::Slot(9)), ("weight", Argument::Slot(0))]);
        call(&mut uses, "aten::linear", &[("input", Argument::Slot(8)), ("weight", Argument::Slot(0))]);
        call(&mut uses, "aten::addmm", &[("self", Argument::Slot(2)), ("mat2", Argument::Slot(1))]);
        call(&mut uses, "aten::conv2d", &[("weight", Argument::Slot(3))]);
        call(&mut uses, "aten::conv2d", &[("weight", Argument::Slot(4)), ("groups", Argument::Integer(8))]);
        call(&mut uses, "aten::embedding", &[("weight", Argument::Slot(5))]);
        call(&mut uses, "aten::linear", &[("weight", Argument::Slot(5))]);
        call(&mut uses, "aten::linear", &[("weight", Argument::Slot(6))]);
        call(&mut uses, "aten::addmm", &[("mat2", Argument::Slot(6))]);
        call(&mut uses, "aten::cat", &[("tensors", Argument::Slots(vec![7]))]);
        assert_eq!(uses.role(&[0]), Ok(Layout::Linear));
        assert_eq!(uses.role(&[1]), Ok(Layout::Transposed));
        assert_eq!(uses.role(&[3]), Ok(Layout::Convolution));
        for (slots, reason) in [
            (&[4][..], "it is a convolution in 8 groups"),
            (&[5], "its weight is used by `aten::embedding`"),
            (&[6], "its weight is used in two ways"),
            (&[7], "its weight is used by `aten::cat`"),
            (&[10], "nothing is computed with its weight"),
            (&[0, 1], "it has several names, which are tied"),
        ] {
            assert_eq!(uses.role(slots), Err(reason.to_owned()));
        }
    }
}
