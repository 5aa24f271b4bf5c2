//! Layer-wise decay of the learning rate: the earlier a layer, the smaller its steps.
//!
//! As fine-tuning does it (Clark et al. 2020, ELECTRA; Bao et al. 2022, BEiT; `param_groups_layer_decay` of timm): the last layer
//! has the learning rate itself, and each one before it `layer_decay` times that of the next.

/// The layer of each of a model's parameters, by their names in the model's order, counted from 0.
///
/// A layer is what a name has up to its first number: `blocks.3` of `blocks.3.norm1.weight`, `layer1.0` of
/// `layer1.0.conv2.weight`. Parameters before the first such layer, embeddings above all, are layer 0; those after it that are
/// in none, such as the last norm and the output, are together the last layer.
pub(super) fn layers(names: &[&str]) -> Vec<usize> {
    let mut numbered: Vec<&str> = Vec::new();
    let mut found: Vec<Option<usize>> = Vec::new();
    for name in names {
        let layer = match numbered_layer(name) {
            None if numbered.is_empty() => Some(0),
            None => None,
            Some(layer) => {
                let known = numbered.iter().position(|known| *known == layer);
                Some(
                    1 + known.unwrap_or_else(|| {
                        numbered.push(layer);
                        numbered.len() - 1
                    }),
                )
            }
        };
        found.push(layer);
    }
    let last = numbered.len() + 1;
    found.into_iter().map(|layer| layer.unwrap_or(last)).collect()
}

/// The part of a name that says its layer, if there is a number in it.
fn numbered_layer(name: &str) -> Option<&str> {
    let mut end = 0;
    for part in name.split('.') {
        end += part.len();
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            return name.get(..end);
        }
        end += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_layers_between_the_embedding_and_the_output() {
        let names = [
            "cls_token",
            "pos_embed",
            "patch_embed.proj.weight",
            "blocks.0.norm1.weight",
            "blocks.0.attn.qkv.weight",
            "blocks.1.norm1.weight",
            "blocks.11.norm1.weight",
            "norm.weight",
            "head.bias",
        ];
        assert_eq!(layers(&names), [0, 0, 0, 1, 1, 2, 3, 4, 4]);
        assert_eq!(
            layers(&[
                "conv1.weight",
                "layer1.0.conv1.weight",
                "layer1.1.bn1.bias",
                "layer2.0.conv1.weight",
                "fc.weight"
            ]),
            [0, 1, 2, 3, 4]
        );
    }

    #[test]
    fn layers_of_a_sequence_are_numbered_from_its_first_one() {
        assert_eq!(layers(&["0.weight", "0.bias", "2.weight", "2.bias"]), [1, 1, 2, 2]);
        assert_eq!(layers(&["fc1.weight", "fc2.weight"]), [0, 0], "no number stands by itself");
        assert_eq!(layers(&[]), [0; 0]);
    }
}
