//! The hyper-parameters of each parameter group, and who owns them.

use std::collections::BTreeMap;

use plugin_api::protocol::ParameterGroup;
use plugin_api::protocol::requests::HyperParameterSet;

use super::super::learner::Learner;
use crate::services::ServiceError;

/// Every group with its values and their owners.
pub(super) fn groups(learner: &Learner) -> Vec<ParameterGroup> {
    learner
        .optimizer
        .groups()
        .iter()
        .map(|group| {
            let names = group.hyper_parameter_names().iter();
            let values: BTreeMap<String, f64> =
                names.filter_map(|name| Some(((*name).to_owned(), group.get(name).ok()?))).collect();
            let owners = values
                .keys()
                .filter_map(|name| {
                    let owner = learner.owners.get(&(group.name().to_owned(), name.clone()))?;
                    Some((name.clone(), owner.clone()))
                })
                .collect();
            ParameterGroup { name: group.name().to_owned(), values, owners }
        })
        .collect()
}

/// Sets a value of one group, or of every group that has it; the schedule no longer changes it.
pub(super) fn set(learner: &mut Learner, instance: &str, set: &HyperParameterSet) -> Result<(), ServiceError> {
    let names: Vec<String> = learner.optimizer.groups().iter().map(|group| group.name().to_owned()).collect();
    let groups: Vec<String> = match &set.group {
        Some(group) if names.contains(group) => vec![group.clone()],
        Some(group) => {
            return Err(ServiceError::no_such_name("parameter group", group, names.iter().map(String::as_str)));
        }
        None => learner
            .optimizer
            .groups()
            .iter()
            .filter(|group| group.hyper_parameter_names().contains(&set.name.as_str()))
            .map(|group| group.name().to_owned())
            .collect(),
    };
    if groups.is_empty() {
        let known: Vec<&str> =
            learner.optimizer.groups().iter().flat_map(|group| group.hyper_parameter_names().iter().copied()).collect();
        return Err(ServiceError::no_such_name("hyper-parameter", &set.name, known));
    }
    for group in groups {
        learner.optimizer.set(&group, &set.name, set.value).map_err(|error| ServiceError::Failed(error.to_string()))?;
        let owner = instance.to_owned();
        let before = learner.owners.insert((group.clone(), set.name.clone()), owner);
        if before.as_deref() != Some(instance) {
            tracing::info!(group, name = set.name, value = set.value, owner = instance, "hyper-parameter taken over");
        }
    }
    Ok(())
}
